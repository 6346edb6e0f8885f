package daemon

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// mapped are the settings that are lists, and that may be written as maps in the
// file, each with what stands between key and value then.
var mapped = map[string]string{
	"nodelabels": "=", "systemreserved": "=", "kubereserved": "=", "evictionhard": "<", "evictionsoft": "<",
	"evictionsoftgraceperiod": "=", "evictionminimumreclaim": "=",
}

// readFile reads a configuration file into v. Maps whose keys have dots become
// lists of key=value, because v would cut their keys at the dots and write them in
// lower case.
func readFile(v *viper.Viper, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var settings map[string]any
	if yaml.Unmarshal(raw, &settings) == nil { // v says what is wrong with it
		changed := false
		for key, value := range settings {
			entries, isMap := value.(map[string]any)
			sign, may := mapped[strings.ToLower(key)]
			if !may || !isMap {
				continue
			}
			if settings[key], err = entryList(key, sign, entries); err != nil {
				return err
			}
			changed = true
		}
		if changed {
			if raw, err = yaml.Marshal(settings); err != nil {
				return err
			}
		}
	}
	return v.ReadConfig(bytes.NewReader(raw))
}

func entryList(setting, sign string, entries map[string]any) ([]string, error) {
	out := make([]string, 0, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		value, text := entries[key].(string)
		if number, is := entries[key].(int); is && setting != "nodeLabels" { // a quantity, such as cpu: 1
			value, text = fmt.Sprint(number), true
		}
		if !text && entries[key] != nil {
			return nil, fmt.Errorf("%s: the value of %s is no text: put it in quotes", setting, key)
		}
		out = append(out, key+sign+value)
	}
	return out, nil
}
