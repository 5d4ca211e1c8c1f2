package api

import (
	"context"
	"net/http"

	"dunnage/spec"
)

func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Stats(r.Context())
	v.Replicas, v.Own = list(v.Replicas), list(v.Own)
	return reply(w, http.StatusOK, v, err)
}

// Stats implements Backend.
func (c *Client) Stats(ctx context.Context) (v spec.Stats, err error) {
	err = c.get(ctx, "/stats", nil, &v)
	return v, err
}
