// Package conformance holds the tests of Prism under grpc-go. They need a server: clients/conformance/run starts it
// and says in the environment where it is (PRISM_TARGET, PRISM_PID, PRISM_NAMESPACE).
package conformance
