package volume

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// payload is what a volume holds, by path within it.
type payload map[string]file

type file struct {
	data []byte
	mode int32
}

func (f file) equal(g file) bool { return f.mode == g.mode && bytes.Equal(f.data, g.data) }

const defaultMode int32 = 0o644

// collect returns what a volume should hold.
func collect(s runtime.Sources, volume *corev1.Volume) (payload, error) {
	out := payload{}
	var err error
	switch {
	case volume.ConfigMap != nil:
		c := volume.ConfigMap
		err = configMap(s, out, c.Name, c.Items, mode(c.DefaultMode), isTrue(c.Optional))
	case volume.Secret != nil:
		c := volume.Secret
		err = secret(s, out, c.SecretName, c.Items, mode(c.DefaultMode), isTrue(c.Optional))
	case volume.DownwardAPI != nil:
		err = downward(s, out, volume.DownwardAPI.Items, mode(volume.DownwardAPI.DefaultMode))
	case volume.Projected != nil:
		err = projected(s, out, volume.Projected)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func projected(s runtime.Sources, out payload, p *corev1.ProjectedVolumeSource) error {
	usual := mode(p.DefaultMode)
	for _, source := range p.Sources {
		var err error
		switch {
		case source.ConfigMap != nil:
			err = configMap(s, out, source.ConfigMap.Name, source.ConfigMap.Items, usual, isTrue(source.ConfigMap.Optional))
		case source.Secret != nil:
			err = secret(s, out, source.Secret.Name, source.Secret.Items, usual, isTrue(source.Secret.Optional))
		case source.DownwardAPI != nil:
			err = downward(s, out, source.DownwardAPI.Items, usual)
		case source.ServiceAccountToken != nil:
			err = fmt.Errorf("service account tokens are not issued: there is no API server to present them to")
		default:
			err = fmt.Errorf("the source's type is not supported on this node")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func configMap(s runtime.Sources, out payload, name string, items []corev1.KeyToPath, usual int32, optional bool) error {
	object, found := s.ConfigMap(name)
	data := map[string][]byte{}
	if found {
		for k, v := range object.Data {
			data[k] = []byte(v)
		}
		maps.Copy(data, object.BinaryData)
	}
	return take(out, "configmap", name, found, data, items, usual, optional)
}

func secret(s runtime.Sources, out payload, name string, items []corev1.KeyToPath, usual int32, optional bool) error {
	object, found := s.Secret(name)
	var data map[string][]byte
	if found {
		data = runtime.SecretData(object)
	}
	return take(out, "secret", name, found, data, items, usual, optional)
}

// take adds the keys of an object to a payload: all of them, or those that
// items name.
func take(
	out payload, kind, name string, found bool, data map[string][]byte,
	items []corev1.KeyToPath, usual int32, optional bool,
) error {
	if !found {
		if optional {
			return nil
		}
		return fmt.Errorf("%s %q %w", kind, name, ErrMissing)
	}
	if len(items) == 0 {
		for key, value := range data {
			out[key] = file{value, usual}
		}
		return nil
	}
	for _, item := range items {
		value, has := data[item.Key]
		if !has {
			if optional {
				continue
			}
			return fmt.Errorf("%s %q: key %q %w", kind, name, item.Key, ErrMissing)
		}
		if err := add(out, item.Path, value, item.Mode, usual); err != nil {
			return err
		}
	}
	return nil
}

func downward(s runtime.Sources, out payload, items []corev1.DownwardAPIVolumeFile, usual int32) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = s.Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = s.Resource(nil, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		if err := add(out, item.Path, []byte(value), item.Mode, usual); err != nil {
			return err
		}
	}
	return nil
}

// add adds one file at a path chosen by the manifest's author.
func add(out payload, to string, data []byte, own *int32, usual int32) error {
	if path.IsAbs(to) || to == "" || slices.Contains(strings.Split(to, "/"), "..") {
		return fmt.Errorf("path %q does not stay inside the volume", to)
	}
	m := usual
	if own != nil {
		m = *own
	}
	out[path.Clean(to)] = file{data, m}
	return nil
}

func mode(m *int32) int32 {
	if m == nil {
		return defaultMode
	}
	return *m
}

func isTrue(b *bool) bool { return b != nil && *b }
