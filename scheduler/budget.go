package scheduler

import "github.com/shoal-dev/shoal/scheduler/place"

// budgets are how many pods each PodDisruptionBudget lets go now.
func (in *input) budgets() []place.Budget { return nil }
