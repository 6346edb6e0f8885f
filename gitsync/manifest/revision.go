package manifest

import (
	"encoding/json"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/shoal-dev/shoal/api"
)

// revisionForm names the canonical form below. It is part of what is hashed:
// a new form must have a new name, and rolls every workload once.
const revisionForm = "shoal pod template 1\n"

// revision returns the hash of the pod template in an object as its author
// wrote it, "" when there is none. Of a StatefulSet it covers what Kubernetes lets
// nobody change and its pods are made of, too. Of a Job it covers what cannot be changed
// without another run, of a CronJob what its next run begins with. Keys are sorted and nulls dropped, so that
// comments, order and indentation do not count; nothing is added, so that the
// defaults of a newer version do not count either.
func revision(kind string, object map[string]any) string {
	spec, _ := object["spec"].(map[string]any)
	var authored any
	switch kind {
	case "Pod":
		meta, _ := object["metadata"].(map[string]any)
		authored = map[string]any{
			"metadata": map[string]any{"labels": meta["labels"], "annotations": meta["annotations"]},
			"spec":     object["spec"],
		}
	case "Deployment", "ReplicaSet", "ReplicationController", "DaemonSet":
		authored = spec["template"]
	case "StatefulSet":
		authored = map[string]any{"template": spec["template"], "serviceName": spec["serviceName"], "claims": claimNames(spec)}
	case "Job":
		authored = unchangeable(spec)
	case "CronJob":
		authored = spec["jobTemplate"]
	default:
		return ""
	}
	data, err := json.Marshal(withoutNulls(authored))
	if err != nil {
		return "" // cannot be: it was JSON
	}
	return api.SafeHash(revisionForm+string(data), 10)
}

// claimNames are the names of the volumes that each pod of a StatefulSet has for
// its own.
func claimNames(spec map[string]any) []any {
	templates, _ := spec["volumeClaimTemplates"].([]any)
	out := make([]any, 0, len(templates))
	for _, t := range templates {
		template, _ := t.(map[string]any)
		meta, _ := template["metadata"].(map[string]any)
		out = append(out, meta["name"])
	}
	return out
}

// unchangeable is what Kubernetes lets nobody change in a Job: another one is
// another Job. An Indexed Job may grow and shrink, where it does all its work at
// a time. Source: Kubernetes, "Jobs: Elastic Indexed Jobs", and the validation of
// updates.
func unchangeable(spec map[string]any) map[string]any {
	out := map[string]any{}
	for _, field := range []string{"template", "completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"} {
		out[field] = spec[field]
	}
	completions, parallelism := spec["completions"], spec["parallelism"]
	if spec["completionMode"] == string(batchv1.IndexedCompletion) && completions != nil && fmt.Sprint(completions) == fmt.Sprint(parallelism) {
		delete(out, "completions")
	}
	return out
}

func withoutNulls(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			if item != nil {
				out[key] = withoutNulls(item)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = withoutNulls(item)
		}
		return out
	default:
		return value
	}
}
