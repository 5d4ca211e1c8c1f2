// Package apitest has a Backend that lives in memory, for the tests of the API
// and of the command line. It keeps state as an agent would (a deploy makes a
// release, replicas and events) and prints itself.
package apitest
