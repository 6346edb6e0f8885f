package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

var deployment = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}

func decodeYAML(t *testing.T, gvk schema.GroupVersionKind, text string) []string {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	object, problems := Decode(gvk, data)
	var out []string
	for _, p := range problems {
		out = append(out, p.Field+": "+p.Reason)
	}
	if object != nil {
		if k, _ := Lookup(gvk); k.Namespaced {
			object.SetNamespace("default")
		}
		Default(object)
		for _, e := range Validate(object) {
			out = append(out, e.Error())
		}
	}
	return out
}

func TestDecodeReportsEverything(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"good", `
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x}]}
`, nil},
		{"unknown fields and broken rules together", `
metadata: {name: web}
spec:
  replicass: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: c, image: x, Image: y, ports: [{containerPort: 70000}]}]}
`, []string{
			"spec.replicass: unknown field",
			"spec.template.spec.containers[0].Image: unknown field",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
			"spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
		}},
		{"every wrong type", `
metadata: {name: web, labels: {a: 1, b: yes}}
spec:
  replicas: two
  selector: []
  template:
    spec:
      containers:
      - name: c
        args: [1]
        resources: {limits: {cpu: 1z}}
        ports: [{containerPort: "80"}]
`, []string{
			"metadata.labels[a]: must be a string, is the number 1; put it in quotes",
			"metadata.labels[b]: must be a string, is the boolean true; put it in quotes",
			`spec.replicas: must be a whole number, is the string "two"`,
			"spec.selector: must be a mapping, is a list",
			"spec.template.spec.containers[0].args[0]: must be a string, is the number 1; put it in quotes",
			`spec.template.spec.containers[0].ports[0].containerPort: must be a whole number, is the string "80"`,
			`spec.template.spec.containers[0].resources.limits[cpu]: "1z" is not a valid quantity: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, decodeYAML(t, deployment, test.text)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Each kind must decode, take defaults and be validated without a panic even
// when it is empty, and be found by all of its names.
func TestKinds(t *testing.T) {
	if !slices.IsSortedFunc(Kinds(), func(a, b Kind) int {
		return strings.Compare(a.Group+"/"+a.Kind, b.Group+"/"+b.Kind)
	}) {
		t.Error("kinds are not sorted")
	}
	for _, k := range Kinds() {
		object, problems := Decode(k.GroupVersionKind, []byte("{}"))
		if object == nil || len(problems) > 0 {
			t.Fatalf("%s: %v", k.GroupVersionKind, problems)
		}
		Default(object)
		Validate(object)
		list := k.GroupVersionKind
		list.Kind += "List"
		if _, err := Scheme().New(list); err != nil {
			t.Error(err)
		}
		if got, found := Resource(k.Resource()); !found || got.GroupVersionKind != k.GroupVersionKind {
			t.Errorf("resource %s is not %s", k.Resource(), k.GroupVersionKind)
		}
		if named := Named(strings.ToUpper(k.GroupVersionKind.Kind)); len(named) != 1 {
			t.Errorf("%d kinds are named %s", len(named), k.GroupVersionKind.Kind)
		}
	}
}

// The host names of an Indexed run's pods must not be too long; an API server
// would notice when the run begins.
func TestLongNamesOfIndexedCronJobs(t *testing.T) {
	text := "metadata: {name: %s}\nspec: {schedule: '@daily', jobTemplate: {spec: {completions: %d, completionMode: %s, template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}}"
	gvk := schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "CronJob"}
	for _, test := range []struct {
		length, completions int
		mode                string
		good                bool
	}{{52, 10, "Indexed", true}, {52, 11, "Indexed", false}, {52, 11, "NonIndexed", true}, {40, 100000, "Indexed", true}} {
		if got := decodeYAML(t, gvk, fmt.Sprintf(text, strings.Repeat("a", test.length), test.completions, test.mode)); (len(got) == 0) != test.good {
			t.Errorf("a name of %d characters, %d completions, %s: %v", test.length, test.completions, test.mode, got)
		}
	}
}

// Kinds whose validation an API server prepares with defaults of its own must
// pass when they are right.
func TestValidObjects(t *testing.T) {
	for _, test := range []struct{ group, kind, text string }{
		{"batch", "Job", "metadata: {name: j}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}"},
		{"batch", "CronJob", "metadata: {name: j}\nspec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}}"},
		{"", "Service", "metadata: {name: s}\nspec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}"},
		{"", "Service", "metadata: {name: s}\nspec: {clusterIP: None, selector: {a: b}}"},
		{"", "Secret", "metadata: {name: s}\nstringData: {a: b}"},
		{"", "ServiceAccount", "metadata: {name: s}"},
		{"networking.k8s.io", "NetworkPolicy", "metadata: {name: x}\nspec: {podSelector: {}}"},
		{"policy", "PodDisruptionBudget", "metadata: {name: x}\nspec: {minAvailable: 1, selector: {matchLabels: {a: b}}}"},
		{"storage.k8s.io", "StorageClass", "metadata: {name: x}\nprovisioner: x/y"},
		{"scheduling.k8s.io", "PriorityClass", "metadata: {name: x}\nvalue: 5"},
		{"autoscaling", "HorizontalPodAutoscaler", "metadata: {name: x}\nspec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}"},
	} {
		gvk := schema.GroupVersionKind{Group: test.group, Version: "v1", Kind: test.kind}
		if test.group == "autoscaling" {
			gvk.Version = "v2"
		}
		if got := decodeYAML(t, gvk, test.text); len(got) > 0 {
			t.Errorf("%s:\n%s\nis refused: %v", test.kind, test.text, got)
		}
	}
}

func TestDefaultSecret(t *testing.T) {
	secret := &corev1.Secret{StringData: map[string]string{"user": "root"}, Data: map[string][]byte{"user": []byte("x"), "other": []byte("y")}}
	Default(secret)
	want := map[string][]byte{"user": []byte("root"), "other": []byte("y")}
	if diff := cmp.Diff(want, secret.Data); diff != "" || secret.StringData != nil {
		t.Errorf("stringData must win and go: %s %v", diff, secret.StringData)
	}
}
