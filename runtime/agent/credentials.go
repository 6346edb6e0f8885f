package agent

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/runtime"
)

// pullSecrets returns the credentials that a pod's imagePullSecrets hold. What
// cannot be read is left out: the registry will say what is missing.
func pullSecrets(d runtime.Desired, pod *corev1.Pod) []runtime.Credential {
	var out []runtime.Credential
	add := func(secret string, auths map[string]dockerAuth) {
		for _, c := range credentials(auths) {
			c.Secret = pod.Namespace + "/" + secret
			out = append(out, c)
		}
	}
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, found := d.Secrets[types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name}]
		if !found {
			continue
		}
		data := runtime.SecretData(secret)
		var file struct {
			Auths map[string]dockerAuth `json:"auths"`
		}
		if json.Unmarshal(data[corev1.DockerConfigJsonKey], &file) == nil {
			add(ref.Name, file.Auths)
		}
		var old map[string]dockerAuth
		if json.Unmarshal(data[corev1.DockerConfigKey], &old) == nil {
			add(ref.Name, old)
		}
	}
	return out
}

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

func credentials(auths map[string]dockerAuth) []runtime.Credential {
	var out []runtime.Credential
	for _, host := range slices.Sorted(maps.Keys(auths)) {
		a := auths[host]
		c := runtime.Credential{Host: host, Username: a.Username, Password: a.Password}
		if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
			if user, password, found := strings.Cut(string(raw), ":"); found {
				c.Username, c.Password = user, password
			}
		}
		if a.IdentityToken != "" {
			c.Username, c.Password = "", a.IdentityToken
		}
		out = append(out, c)
	}
	return out
}
