package daemon

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/viper"
)

// configGuide is the page on which every setting stands in a row of a table:
//
//	| `repository.poll` | `10s` | ...
const configGuide = "../docs/guide/configuration.md"

// settings lists the keys of a configuration struct, with their types.
func settings(prefix string, of reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range of.Fields() {
		key := prefix + f.Tag.Get("mapstructure")
		if f.Type.Kind() == reflect.Struct {
			maps.Copy(out, settings(key+".", f.Type))
			continue
		}
		out[key] = f.Type
	}
	return out
}

// Every setting has a default, so that its environment variable is read, and a
// row in the guide with that default and that variable. The guide has no rows
// for settings that do not exist.
func TestGuideListsEverySetting(t *testing.T) {
	guide, err := os.ReadFile(configGuide)
	if err != nil {
		t.Fatal(err)
	}
	v := viper.New()
	setDefaults(v)
	known := settings("", reflect.TypeFor[Config]())
	rows := map[string]string{}
	for line := range strings.Lines(string(guide)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			key, row, _ := strings.Cut(rest, "`")
			rows[key] = row
		}
	}
	for key := range known {
		if !v.IsSet(key) {
			t.Errorf("%s has no default in setDefaults: its environment variable is not read", key)
		}
		row, there := rows[key]
		delete(rows, key)
		if !there {
			t.Errorf("%s has no row for %s", configGuide, key)
			continue
		}
		for _, want := range []string{shownDefault(key, v.Get(key)), "`" + variable(key) + "`"} {
			if !strings.Contains(row, want) {
				t.Errorf("the row of %s in %s does not say %s:%s", key, configGuide, want, row)
			}
		}
	}
	for key := range rows {
		t.Errorf("%s has a row for %s, which is no setting", configGuide, key)
	}
}

// variable is the environment variable of a setting.
func variable(key string) string {
	return "SHOAL_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// shownDefault is how the guide writes a default.
func shownDefault(key string, value any) string {
	switch {
	case slices.Contains([]string{"node", "network.plugins"}, key):
		return "found" // on the machine
	case fmt.Sprint(value) == "", fmt.Sprint(value) == "[]":
		return "none"
	}
	if d, ok := value.(time.Duration); ok {
		return "`" + d.String() + "`"
	}
	return fmt.Sprintf("`%v`", value)
}

// The environment reaches every setting.
func TestEveryVariableIsRead(t *testing.T) {
	want := Config{}
	for key, kind := range settings("", reflect.TypeFor[Config]()) {
		text, _ := sample(key, kind)
		t.Setenv(variable(key), text)
	}
	file := t.TempDir() + "/shoal.yaml"
	if err := os.WriteFile(file, []byte("node: from-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(viper.New(), file)
	if err != nil {
		t.Fatal(err)
	}
	for key, kind := range settings("", reflect.TypeFor[Config]()) {
		_, value := sample(key, kind)
		fill(reflect.ValueOf(&want).Elem(), strings.Split(key, "."), reflect.ValueOf(value))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// sample returns a value that a setting does not have by default, in text and as
// what it is read as.
func sample(key string, kind reflect.Type) (text string, value any) {
	switch {
	case kind == reflect.TypeFor[time.Duration]():
		return "77s", 77 * time.Second
	case kind.Kind() == reflect.Bool:
		return "true", true
	case kind.Kind() == reflect.Int:
		return "78", 78
	case kind.Kind() == reflect.Slice:
		return "x" + key, []string{"x" + key}
	}
	return "x" + key, "x" + key
}

// fill sets the field of a configuration that a key names.
func fill(config reflect.Value, key []string, value reflect.Value) {
	for i := range config.NumField() {
		if config.Type().Field(i).Tag.Get("mapstructure") != key[0] {
			continue
		}
		if len(key) > 1 {
			fill(config.Field(i), key[1:], value)
			return
		}
		config.Field(i).Set(value)
	}
}

// The guide lists every metric of the daemon's own, and no others.
func TestGuideListsEveryMetric(t *testing.T) {
	const page = "../docs/guide/operating.md"
	guide, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(string(guide)) {
		if rest, ok := strings.CutPrefix(line, "| `shoal_"); ok {
			name, _, _ := strings.Cut(rest, "`")
			rows["shoal_"+name] = true
		}
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		newMetrics(func() *view { return nil }).registry.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		if strings.HasPrefix(name, "shoal_") && !rows[name] {
			t.Errorf("%s has no row for %s", page, name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s has a row for %s, which is no metric", page, name)
	}
}
