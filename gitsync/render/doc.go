// Package render builds kustomizations, in a child process that has no
// network, little memory and little time.
//
// Kustomize with its default options fetches HTTP resources and runs git, and
// it makes 600 MB of garbage for 1,000 resources. So Plan first reads the
// kustomizations, refuses what reaches outside of the commit and lists the
// files that are needed; Build then pipes these files to a copy of this
// program, which builds them in memory and pipes the objects back. Nothing
// touches the disk. A program that uses Build calls Main first thing:
//
//	func main() {
//		render.Main() // does not return in the child
//		...
//
// The result depends on nothing but the files of the plan: a caller may keep
// it as long as Plan.Key stays the same.
package render
