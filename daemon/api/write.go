package api

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refuseWrite answers a write with 405 and the place in Git where the change
// belongs.
func (s *Server) refuseWrite(w http.ResponseWriter, r *http.Request, q request) {
	message := fmt.Sprintf("this API is read-only: commit the change to %s", s.cfg.Repository())
	name := q.name
	if name != "" {
		what := q.kind.Kind + " " + name
		if q.namespace != "" {
			what = q.kind.Kind + " " + q.namespace + "/" + name
		}
		message = fmt.Sprintf("%s is not in Git; %s", what, message)
		if owner, source, found := s.cfg.Where(q.kind.Kind, q.namespace, name); found {
			message = fmt.Sprintf("%s is %s; change it there", what, source)
			if owner.String() != what {
				message = fmt.Sprintf("%s belongs to %s, which is %s; change it there", what, owner, source)
			}
		}
	}
	s.fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed, Message: message,
		Details: &metav1.StatusDetails{Group: q.kind.Group, Kind: q.kind.Plural, Name: name},
	}})
}
