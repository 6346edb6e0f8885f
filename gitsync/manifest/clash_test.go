package manifest

import (
	"strings"
	"testing"
)

func TestServicesThatClash(t *testing.T) {
	service := func(name, spec string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: " + spec + "\n---\n"
	}
	text := service("a", "{clusterIP: 10.96.7.7, ports: [{port: 80}]}") +
		service("b", "{clusterIP: 10.96.7.7, ports: [{port: 80}]}") +
		service("c", "{type: NodePort, ports: [{port: 80, nodePort: 30080}]}") +
		service("d", "{type: NodePort, ports: [{name: one, port: 80}, {name: two, port: 81, nodePort: 30080}]}") +
		service("e", "{type: NodePort, ports: [{port: 80, nodePort: 30080, protocol: UDP}]}") +
		service("f", "{clusterIP: None, ports: [{port: 80}]}") + service("g", "{clusterIP: None, ports: [{port: 80}]}")
	_, problems := Assemble("main", "c", []Decoded{Decode(File{Path: "s.yaml", Data: []byte(text)})})
	var got []string
	for _, p := range problems {
		if strings.Contains(p.Reason, "already") {
			got = append(got, p.Error())
		}
	}
	want := []string{
		"s.yaml:6: spec.clusterIP: the address 10.96.7.7 belongs to Service default/a already, at s.yaml:1",
		"s.yaml:16: spec.ports[1].nodePort: port 30080/TCP of the nodes belongs to Service default/c already, at s.yaml:11",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
