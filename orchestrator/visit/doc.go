// Package visit asks the addresses that clients use, on the way that clients
// take, and says which of them answer. Visitor keeps the schedule and the count;
// what one visit means is decided by the pure type record.
package visit
