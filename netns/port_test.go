package netns

import "dunnage/orchestrator"

// The contract between the parts, held by the compiler.
var _ orchestrator.Network = (*Network)(nil)
