package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/api"
)

// assembled returns the revision of the Deployment web in the documents.
func assembled(t *testing.T, documents ...string) string {
	t.Helper()
	snapshot, problems := Assemble("main", "c1", []Decoded{Decode(File{Path: "web.yaml", Data: []byte(strings.Join(documents, "\n---\n"))})})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	object, found := snapshot.Lookup(api.Key{Group: "apps", Kind: "Deployment", Namespace: "default", Name: "web"})
	if !found {
		t.Fatal("it is gone")
	}
	return object.Revision
}

// TestRevisionOfConfiguration: whatever a container or a volume reads counts, and
// nothing else.
func TestRevisionOfConfiguration(t *testing.T) {
	const base = `{containers: [{name: c, image: x, env: [{name: A, valueFrom: {%s}}]}]}`
	web := func(annotation, spec string) string {
		return fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, annotations: {%s}}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: %s}}", annotation, spec)
	}
	configMap := func(name, fields string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n" + fields
	}
	secret := func(name, fields string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\n" + fields
	}
	const rolls, optional = `fleet.shoal.dev/roll-on-config: "true"`, `configMapKeyRef: {name: m, key: k, optional: true}`
	volume := func(source string) string {
		return "{containers: [{name: c, image: x}], volumes: [{name: v, " + source + "}]}"
	}
	for _, tt := range []struct {
		name, annotation, spec string
		a, b                   string
		same                   bool
	}{
		{"env", rolls, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {k: v}"), configMap("m", "data: {k: w}"), false},
		{"the whole of it", rolls, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {k: v}"), configMap("m", "data: {k: v, l: w}"), false},
		{"without it", `other: "true"`, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {k: v}"), configMap("m", "data: {k: w}"), true},
		{"turned off", `fleet.shoal.dev/roll-on-config: "false"`, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {k: v}"), configMap("m", "data: {k: w}"), true},
		{"layout", rolls, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {a: b, k: v}"), configMap("m", "data:\n  # why\n  k: v\n  a: b\nimmutable: false"), true},
		{"another one", rolls, fmt.Sprintf(base, "configMapKeyRef: {name: m, key: k}"), configMap("m", "data: {k: v}") + "\n---\n" + configMap("other", "data: {k: v}"), configMap("m", "data: {k: v}") + "\n---\n" + configMap("other", "data: {k: w}"), true},
		{"another namespace", rolls, fmt.Sprintf(base, optional), configMap("m, namespace: elsewhere", "data: {k: v}"), configMap("m, namespace: elsewhere", "data: {k: w}"), true},
		{"binary", rolls, volume("configMap: {name: m}"), configMap("m", "binaryData: {k: AAEC}"), configMap("m", "binaryData: {k: AAED}"), false},
		{"text or binary", rolls, volume("configMap: {name: m}"), configMap("m", "data: {k: a}"), configMap("m", "binaryData: {k: YQ==}"), false},
		{"optional, missing", rolls, fmt.Sprintf(base, optional), configMap("other", "data: {k: v}"), secret("m", "stringData: {k: v}"), true},
		{"optional, comes", rolls, fmt.Sprintf(base, optional), configMap("other", "data: {k: v}"), configMap("m", ""), false},
		{"secret", rolls, fmt.Sprintf(base, "secretKeyRef: {name: m, key: k}"), secret("m", "data: {k: YQ==}"), secret("m", "data: {k: Yg==}"), false},
		{"secret as text", rolls, fmt.Sprintf(base, "secretKeyRef: {name: m, key: k}"), secret("m", "data: {k: YQ==}"), secret("m", "stringData: {k: a}"), true},
		{"init container", rolls, "{initContainers: [{name: i, image: x, envFrom: [{configMapRef: {name: m}}]}], containers: [{name: c, image: x}]}", configMap("m", "data: {k: v}"), configMap("m", "data: {k: w}"), false},
		{"envFrom secret", rolls, "{containers: [{name: c, image: x, envFrom: [{secretRef: {name: m}}]}]}", secret("m", "stringData: {k: v}"), secret("m", "stringData: {k: w}"), false},
		{"volume of a secret", rolls, volume("secret: {secretName: m}"), secret("m", "stringData: {k: v}"), secret("m", "stringData: {k: w}"), false},
		{"projected", rolls, volume("projected: {sources: [{configMap: {name: m}}, {secret: {name: s}}]}"), configMap("m", "data: {k: v}"), configMap("m", "data: {k: w}"), false},
		{"projected secret", rolls, volume("projected: {sources: [{secret: {name: m}}]}"), secret("m", "stringData: {k: v}"), secret("m", "stringData: {k: w}"), false},
		{
			"credentials for images", rolls, "{imagePullSecrets: [{name: m}], containers: [{name: c, image: x}]}",
			secret("m", "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{}'}"), secret("m", "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\":{}}'}"), true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pods := web(tt.annotation, tt.spec)
			a, b := assembled(t, pods, tt.a), assembled(t, tt.b, pods)
			if (a == b) != tt.same {
				t.Errorf("revisions %s and %s", a, b)
			}
			if plain := assembled(t, web("", tt.spec), tt.a); (plain == a) != (tt.annotation != rolls) {
				t.Errorf("without the annotation the revision is %s, with it %s", plain, a)
			}
		})
	}
	const spec = `{containers: [{name: c, image: x, env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]}`
	if got, want := assembled(t, web(rolls, spec), configMap("m", "data: {k: v}")), "mczb7xhvc5"; got != want {
		t.Errorf("revision %s, want %s: pods that were running are now of another one", got, want)
	}
}
