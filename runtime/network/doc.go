// Package network gives pods their network and the namespaces that their
// containers share.
//
// A pod has no pause process. Its network, IPC and UTS namespaces are pinned:
// bind-mounted below the run directory, where containers join them by path and
// where they stay when every process of the pod is gone. The network itself is
// made by CNI plugins (bridge and host-local) from a configuration generated
// in memory; addresses, bridge and pins vanish together in a reboot.
//
// Making a sandbox has two halves, so that containers can be made while the
// slower one runs: Prepare pins the namespaces, Connect runs the plugins and
// writes the record that makes the sandbox complete. A sandbox without a record
// was interrupted half-way and is removed.
//
// Pods of different nodes reach each other by their own addresses: [Plan] works
// out the paths, directly where nodes share a network and through a VXLAN device
// where they do not, and a [Fabric] makes the kernel have them.
//
// "The host" is the network namespace that this process lives in, which is not
// always the machine's first one.
package network
