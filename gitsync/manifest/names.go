package manifest

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

// nameOf names an object for a message before it is known to be valid:
// "Deployment default/web", or "Deployment" while it has no name.
func nameOf(object map[string]any, kind kube.Kind) string {
	meta, _ := object["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if name == "" {
		return kind.GroupVersionKind.Kind
	}
	key := api.Key{Kind: kind.GroupVersionKind.Kind, Name: name}
	if kind.Namespaced {
		key.Namespace = metav1.NamespaceDefault
		if namespace, _ := meta["namespace"].(string); namespace != "" {
			key.Namespace = namespace
		}
	}
	return key.String()
}

// encoded returns the JSON of the entry.
func (e entry) encoded() ([]byte, error) {
	if e.json != nil {
		return e.json, nil
	}
	data, err := json.Marshal(e.object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", e.prefix, err)
	}
	return data, nil
}

// first returns the line of the first key of an entry: without a prefix that
// is the document's, which needs no parsing.
func (p *positions) first(prefix string) int {
	if prefix == "" {
		return p.firstLine()
	}
	return p.line(prefix)
}
