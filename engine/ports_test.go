package engine_test

import (
	"dunnage/engine"
	"dunnage/orchestrator"
)

// The engine is what the orchestrator asks for.
var _ interface {
	orchestrator.Engine
	orchestrator.Images
	orchestrator.Volumes
	orchestrator.Execer
} = (*engine.Engine)(nil)
