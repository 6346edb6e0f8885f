package main

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/viper"

	"github.com/shoal-dev/shoal/daemon"
)

// What may change while the daemon runs does so as soon as the file is read again;
// a file that cannot be used changes nothing.
func TestReload(t *testing.T) {
	file := t.TempDir() + "/shoal.yaml"
	s := &settings{v: viper.New(), file: file}
	level, changes := new(slog.LevelVar), make(chan daemon.Config, 1)
	var out bytes.Buffer
	read := func(text string) {
		t.Helper()
		out.Reset()
		if err := os.WriteFile(file, []byte("repository: {url: /srv/git}\nstate: "+t.TempDir()+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		reload(s, level, changes, slog.New(slog.NewTextHandler(&out, nil)))
	}
	read("log: {level: debug}\nnodeLabels: {disk: hdd}\n")
	read("log: {level: debug}\nnodeLabels: {disk: ssd}\nnodeTaints: ['a:NoSchedule']\n") // before anybody looked
	got := <-changes
	if level.Level() != slog.LevelDebug || !slices.Equal(got.NodeLabels, []string{"disk=ssd"}) || !slices.Equal(got.NodeTaints, []string{"a:NoSchedule"}) {
		t.Errorf("level %s, labels %v, taints %v", level.Level(), got.NodeLabels, got.NodeTaints)
	}
	read("log: {level: warn}\nnodeTaints: ['a:Never']\n")
	if level.Level() != slog.LevelDebug || len(changes) > 0 || !strings.Contains(out.String(), "none of NoSchedule") {
		t.Errorf("a file with a mistake was used: level %s, %d changes, said %s", level.Level(), len(changes), &out)
	}
}
