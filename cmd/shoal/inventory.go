package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
)

// maxInventory bounds the file of nodes, in bytes.
const maxInventory = 64 << 20

// readInventory reads the nodes to plan for from a file of Node objects, one
// document each or a list of them, as `kubectl get nodes -o yaml` prints it.
func readInventory(name string) (daemon.Decision, error) {
	file, err := os.Open(name)
	if err != nil {
		return daemon.Decision{}, fmt.Errorf("read the nodes: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	var d daemon.Decision
	documents := yaml.NewYAMLOrJSONDecoder(io.LimitReader(file, maxInventory), 4096)
	for {
		var raw json.RawMessage
		if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return daemon.Decision{}, fmt.Errorf("read the nodes: %s: %w", name, err)
		}
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		nodes, err := readNodes(raw)
		if err != nil {
			return daemon.Decision{}, fmt.Errorf("read the nodes: %s: %w", name, err)
		}
		d.Board.Nodes = append(d.Board.Nodes, nodes...)
	}
	if len(d.Board.Nodes) == 0 {
		return daemon.Decision{}, fmt.Errorf("read the nodes: %s has none; it must hold objects of kind Node", name)
	}
	seen := map[string]bool{}
	for _, n := range d.Board.Nodes {
		if seen[n.Name] {
			return daemon.Decision{}, fmt.Errorf("read the nodes: %s has the node %q twice", name, n.Name)
		}
		seen[n.Name] = true
	}
	return d, nil
}

// readNodes reads one document.
func readNodes(raw json.RawMessage) ([]api.NodeInfo, error) {
	var list struct {
		Kind  string            `json:"kind"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	switch list.Kind {
	case "List", "NodeList":
		var out []api.NodeInfo
		for _, item := range list.Items {
			nodes, err := readNodes(item)
			if err != nil {
				return nil, err
			}
			out = append(out, nodes...)
		}
		return out, nil
	case "Node", "": // an item of a NodeList may leave its kind out
	default:
		return nil, fmt.Errorf("there is a %s; only nodes are read", list.Kind)
	}
	var n corev1.Node
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, err
	}
	if n.Name == "" {
		return nil, errors.New("a node has no name")
	}
	info := api.NodeInfo{
		Name: n.Name, Labels: n.Labels, Taints: n.Spec.Taints, Unschedulable: n.Spec.Unschedulable,
		Capacity: n.Status.Capacity, Allocatable: n.Status.Allocatable, Images: n.Status.Images,
	}
	if info.Allocatable == nil {
		info.Allocatable = n.Status.Capacity.DeepCopy()
	}
	if info.Allocatable.Cpu().IsZero() || info.Allocatable.Memory().IsZero() {
		return nil, fmt.Errorf("node %s: status.allocatable must say how much cpu and memory it has", n.Name)
	}
	for name, most := range map[corev1.ResourceName]string{corev1.ResourcePods: "110", corev1.ResourceEphemeralStorage: "1Ti"} {
		if _, written := info.Allocatable[name]; !written {
			info.Allocatable[name] = resource.MustParse(most)
		}
	}
	return []api.NodeInfo{info}, nil
}
