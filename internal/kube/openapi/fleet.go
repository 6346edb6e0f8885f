package openapi

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"

	"github.com/shoal-dev/shoal/api"
)

// definitions are those that Kubernetes generates, and that of Fleet.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	out := openapi.GetOpenAPIDefinitions(ref)
	meta := metav1.ObjectMeta{}.OpenAPIModelName()
	out[util.GetCanonicalTypeName(&api.Fleet{})] = common.OpenAPIDefinition{
		Schema: object("The settings of a whole fleet. There is one at most; without it every setting has its default.", map[string]spec.Schema{
			"apiVersion": text("fleet.shoal.dev/v1alpha1"),
			"kind":       text("Fleet"),
			"metadata":   {SchemaProps: spec.SchemaProps{Description: "Standard object's metadata.", Ref: ref(meta)}},
			"spec": object("What the fleet is to do beyond what its workloads say.", map[string]spec.Schema{
				"onFailedRollout": text("What becomes of a Deployment whose rollout has missed its progress deadline: none leaves it as it is, "+
					"rollback gives its pods the last template that worked. None is the default.", api.FailedRolloutNone, api.FailedRolloutBack),
				"rebalance": text("Whether pods that run well move to nodes with more room: none leaves them where they are, "+
					"gentle moves one at a time while nothing else happens. None is the default.", api.RebalanceNone, api.RebalanceGentle),
				"imagePolicies": list("Which images must be signed, and by whom. Of an image that several policies cover each asks for a signature.",
					object("Whose images must be signed by one of the keys.", map[string]spec.Schema{
						"images": list("Patterns of repositories in full, without tag and digest: * stands for any part of one step of the path, ** for any number of steps.", text("docker.io/library/*")),
						"keys":   list("Public keys in PEM, ECDSA P-256 or Ed25519, as cosign writes them.", text("A public key.")),
					})),
			}),
		}),
		Dependencies: []string{meta},
	}
	return out
}

func object(description string, properties map[string]spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Description: description, Type: []string{"object"}, Properties: properties}}
}

func list(description string, of spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Description: description, Type: []string{"array"}, Items: &spec.SchemaOrArray{Schema: &of}}}
}

func text(description string, values ...any) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Description: description, Type: []string{"string"}, Enum: values}}
}
