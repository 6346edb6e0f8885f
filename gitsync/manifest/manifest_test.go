package manifest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/shoal-dev/shoal/internal/scenario"
)

// Each archive of testdata holds the files of a commit and, in "want", what
// they come to: problems, then objects.
func TestGolden(t *testing.T) {
	scenario.Run(t, "testdata/*.txtar", func(_ *testing.T, c scenario.Case) string {
		var files []Decoded
		for _, f := range c.Sections {
			files = append(files, Decode(File{Path: f.Name, Data: f.Data}))
		}
		return describeAll(files)
	})
}

func describeAll(files []Decoded) string {
	snapshot, problems := Assemble("unit", "0123456789abcdef", files)
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%s", p.Error())
		if p.Object != "" {
			fmt.Fprintf(&b, " [%s]", p.Object)
		}
		b.WriteString("\n")
	}
	for o := range snapshot.Objects() {
		fmt.Fprintf(&b, "%s %s %s\n", o.Key(), o.Source, o.Revision)
	}
	return b.String()
}

const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n"

func TestUnreadableFiles(t *testing.T) {
	utf16 := "\xff\xfea\x00p\x00i\x00"
	for _, test := range []struct{ name, data, want string }{
		{"too large", strings.Repeat("#", MaxFile+1), "x.yaml: the file has 1048577 bytes; manifests may have 1048576 at most"},
		{"byte order mark", "\xef\xbb\xbf" + pod, "x.yaml:1: the file starts with a byte order mark; save it as UTF-8 without one"},
		{"UTF-16", utf16, "x.yaml:1: the file is UTF-16; save it as UTF-8"},
		{"UTF-16 without a mark", "a\x00p\x00", "x.yaml:1: the file holds a NUL byte: it is binary, or UTF-16; save it as UTF-8 text"},
		{"binary", "a: 1\n\x7fELF\x00", "x.yaml:2: the file holds a NUL byte: it is binary, or UTF-16; save it as UTF-8 text"},
		{"latin 1", "a: 1\nb: caf\xe9\n", "x.yaml:2: the file is not UTF-8 text"},
		{"LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "x.yaml:1: the file is a Git LFS pointer; LFS is not supported, commit the manifest itself"},
		{"billion laughs", bomb(), "x.yaml:1: the document's aliases expand to more than a million values or bytes"},
		{"anchor in itself", "a: &a [*a]\n", "x.yaml:1: the document's aliases expand to more than a million values or bytes"},
		{"deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), "x.yaml:1: the document is nested more than 100 levels deep"},
		{"very deep", strings.Repeat("[", 20000), "x.yaml:1: not valid YAML: exceeded max depth of 10000"},
		{"tab", "a: 1\nb:\n\tc: 3\n", "x.yaml:3: a tab indents this line; YAML allows only spaces"},
		{"template", "a: 1\nb: {{ .Values.x }}\n", `x.yaml:2: looks like a template ("{{"), not a manifest: Helm charts are planned but not rendered yet; commit what "helm template" prints`},
		{"sops", "a: ENC[x]\nsops: {version: 3}\n", "x.yaml:2: sops: the file is encrypted with SOPS; decryption is planned, not served yet"},
		{"text", "hello\n", "x.yaml:1: not a Kubernetes manifest: a document must be a mapping with apiVersion, kind and metadata"},
		{"marker", "--- {}\n", "x.yaml:1: nothing but a comment may follow a document marker on its line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Decode(File{Path: "x.yaml", Data: []byte(test.data)})
			if len(got.Problems) != 1 || got.Problems[0].Error() != test.want {
				t.Errorf("got  %v\nwant %s", got.Problems, test.want)
			}
		})
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 x\n")
	for i := range 10 {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	return b.String()
}

// What a new field of Kubernetes means for this program has to be decided:
// every field of a struct in the scope tables is in exactly one of them.
func TestScopeTablesAreComplete(t *testing.T) {
	for of := range scopeRules {
		if servedFields[of] == nil {
			t.Errorf("%s has rules and is not in servedFields", of)
		}
	}
	for of, served := range servedFields {
		known := map[string]bool{}
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			known[name] = true
			_, limited := scopeRules[of][name]
			if served[name] == limited {
				t.Errorf("%s.%s: served %t, in FieldScopes %t", of, name, served[name], limited)
			}
		}
		for name := range served {
			if !known[name] {
				t.Errorf("%s has no field %s", of, name)
			}
		}
		for name := range scopeRules[of] {
			if !known[name] {
				t.Errorf("%s has no field %s", of, name)
			}
		}
	}
}

// The revision must not depend on how a template is laid out, nor on anything
// outside of it, and must never change for what is in Git today.
func TestRevision(t *testing.T) {
	revisionOf := func(text string) string {
		d := Decode(File{Path: "x.yaml", Data: []byte(text)})
		if len(d.Objects) != 1 {
			t.Fatalf("%v", d.Problems)
		}
		return d.Objects[0].Revision
	}
	web := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: %d\n  selector: {matchLabels: {a: b}}\n  template: %s\n"
	block := "\n    # a comment\n    metadata:\n      creationTimestamp: null\n      labels: {a: b}\n    spec:\n      containers:\n      - image: x\n        name: c\n"
	flow := "{spec: {containers: [{name: c, image: x}]}, metadata: {labels: {a: b}}}"
	want := "dglxfxl5wz"
	for _, text := range []string{fmt.Sprintf(web, 1, block), fmt.Sprintf(web, 2, flow)} {
		if got := revisionOf(text); got != want {
			t.Errorf("revision %s, want %s: templates that were running are now different", got, want)
		}
	}
	if got := revisionOf(fmt.Sprintf(web, 1, strings.Replace(flow, "image: x", "image: z", 1))); got == want {
		t.Error("another image has the same revision")
	}
	if a, b := revisionOf(pod), revisionOf(strings.Replace(pod, "name: p", "name: q", 1)); a != b {
		t.Error("the revision of a pod depends on its name")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(pod))
	f.Add([]byte(bomb()))
	f.Add([]byte("a: &a [*a]\n---\n- b\n...\n<<: *x"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"}}]}`))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {template: {spec: {containers: [{name: c, resources: {limits: {cpu: 1z}}}]}}}"))
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range archives {
		if archive, err := txtar.ParseFile(path); err == nil {
			for _, file := range archive.Files {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := Decode(File{Path: "f.yaml", Data: data})
		lines := strings.Count(string(data), "\n") + 1
		for _, p := range d.Problems {
			if p.Line < 0 || p.Line > lines || p.Reason == "" {
				t.Errorf("problem without a place or reason: %+v", p)
			}
		}
		for _, o := range d.Objects {
			if o.Value.GetName() == "" || o.Source.Line < 1 || o.Source.Line > lines {
				t.Errorf("object without a name or place: %+v", o.Source)
			}
		}
		Assemble("u", "c", []Decoded{d, d})
	})
}

func BenchmarkDecode(b *testing.B) {
	data := []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  labels: {app: web}\nspec:\n  replicas: 3\n  selector:\n    matchLabels:\n      app: web\n  template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      containers:\n      - name: web\n        image: nginx:1.27\n        ports:\n        - containerPort: 80\n          name: http\n        resources:\n          requests: {cpu: 100m, memory: 64Mi}\n          limits: {memory: 128Mi}\n        readinessProbe:\n          httpGet: {path: /, port: http}\n        env:\n        - name: MODE\n          value: production\n")
	for b.Loop() {
		if d := Decode(File{Path: "web.yaml", Data: data}); len(d.Problems) > 0 {
			b.Fatal(d.Problems)
		}
	}
}

// What Kubernetes lets nobody change in a Job makes another run of it, and
// nothing else does.
func TestRevisionOfAJob(t *testing.T) {
	revisionOf := func(kind, fields string) string {
		text := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {%s, template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}"
		if kind == "CronJob" {
			text = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j}\nspec: {schedule: '@daily', jobTemplate: {spec: {%s, template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}}"
		}
		d := Decode(File{Path: "j.yaml", Data: fmt.Appendf(nil, text, fields)})
		if len(d.Objects) != 1 || len(d.Problems) != 0 {
			t.Fatalf("%s: %v", fields, d.Problems)
		}
		return d.Objects[0].Revision
	}
	for _, tt := range []struct {
		kind, a, b string
		same       bool
	}{
		{"Job", "backoffLimit: 1", "backoffLimit: 2", true},
		{"Job", "suspend: true, parallelism: 2, completions: 3", "parallelism: 3, completions: 3, ttlSecondsAfterFinished: 9", true},
		{"Job", "completions: 3", "completions: 4", false},
		{"Job", "completions: 3, parallelism: 3", "completions: 4, parallelism: 4", false},
		{"Job", "completionMode: Indexed, completions: 3, parallelism: 3", "completionMode: Indexed, completions: 4, parallelism: 4", true},
		{"Job", "completionMode: Indexed, completions: 3, parallelism: 1", "completionMode: Indexed, completions: 4, parallelism: 1", false},
		{"Job", "completionMode: Indexed, completions: 3, backoffLimitPerIndex: 1", "completionMode: Indexed, completions: 3", false},
		{"CronJob", "backoffLimit: 1", "backoffLimit: 2", false},
		{"CronJob", "backoffLimit: 1", "backoffLimit: 1 ", true},
	} {
		if a, b := revisionOf(tt.kind, tt.a), revisionOf(tt.kind, tt.b); (a == b) != tt.same {
			t.Errorf("%s with %q and with %q have the revisions %s and %s", tt.kind, tt.a, tt.b, a, b)
		}
	}
}
