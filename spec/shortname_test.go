package spec

import "testing"

// Where two replicas of a service have one short name, none of its replicas is
// told by one.
func TestShortName(t *testing.T) {
	r := func(service, id string) ReplicaStatus { return ReplicaStatus{Service: service, Replica: id} }
	all := []ReplicaStatus{r("web", "shop-web-0123abcd-1"), r("web", "shop-web-0123abcd-2"), r("web", "shop-web-4567abcd-1"), r("db", "shop-db-0123abcd-1")}
	for i, want := range []string{"shop-web-0123abcd-1", "shop-web-0123abcd-2", "shop-web-4567abcd-1", "db-1"} {
		if got := all[i].ShortName(all); got != want {
			t.Errorf("%s is called %s, want %s", all[i].Replica, got, want)
		}
	}
	if got := all[1].ShortName(all[:2]); got != "web-2" {
		t.Errorf("alone in its generation it is called %s", got)
	}
}
