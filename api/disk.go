package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"dunnage/spec"
)

func (s *Server) disk(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.DiskReport(r.Context())
	v.Items, v.Filesystems = list(v.Items), list(v.Filesystems)
	return reply(w, http.StatusOK, v, err)
}

// rehearse: ?all=true for what was brought just now, too.
func (s *Server) rehearse(w http.ResponseWriter, r *http.Request) error {
	return s.collected(w, r, true)
}

func (s *Server) collect(w http.ResponseWriter, r *http.Request) error {
	return s.collected(w, r, false)
}

func (s *Server) collected(w http.ResponseWriter, r *http.Request, rehearse bool) error {
	all, err := truth(r, "all", false)
	if err != nil {
		return err
	}
	v, err := s.backend.Collect(r.Context(), rehearse, all)
	v.Items = list(v.Items)
	return reply(w, http.StatusOK, v, err)
}

// DiskReport implements Backend.
func (c *Client) DiskReport(ctx context.Context) (v spec.DiskReport, err error) {
	err = c.get(ctx, "/disk", nil, &v)
	return v, err
}

// Collect implements Backend.
func (c *Client) Collect(ctx context.Context, rehearse, all bool) (v spec.Collection, err error) {
	q := url.Values{"all": {strconv.FormatBool(all)}}
	if rehearse {
		err = c.get(ctx, "/disk/collectable", q, &v)
		return v, err
	}
	err = c.postFor(ctx, removeTimeout, "/disk/collect?"+q.Encode(), struct{}{}, &v)
	return v, err
}
