// Package manifest turns the files of a commit into objects of the desired
// state, or into a list of everything that is wrong with them.
//
// It is pure: bytes in, values out. Files are decoded one by one, so that a
// caller can do it in parallel and keep the results of files that did not
// change; Assemble then looks at all of them together:
//
//	for _, file := range files {
//		decoded = append(decoded, manifest.Decode(file))
//	}
//	snapshot, problems := manifest.Assemble(unit, commit, decoded)
//
// A document goes through strict decoding, scope (what this program serves),
// Kubernetes' defaulting and Kubernetes' validation. No step stops at the first
// mistake, and no field is ignored: what is not served is an error or, where
// the rest of the object makes sense without it, a warning.
//
// What is served, planned and out is one table, in scope.go and fields.go;
// SCOPE.md is written from it.
package manifest
