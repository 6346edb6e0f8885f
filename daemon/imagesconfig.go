package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/shoal-dev/shoal/runtime"
)

// ImagesConfig says how images are fetched and deleted. What kubelet has, too,
// has kubelet's names.
type ImagesConfig struct {
	High   int           `mapstructure:"imageGCHighThresholdPercent"` // of the disk
	Low    int           `mapstructure:"imageGCLowThresholdPercent"`
	MinAge time.Duration `mapstructure:"imageMinimumGCAge"`

	Peers bool `mapstructure:"peers"` // take images from other nodes, and give them

	Serialize bool `mapstructure:"serializeImagePulls"` // one at a time
	Parallel  int  `mapstructure:"maxParallelImagePulls"`
	PerSecond int  `mapstructure:"registryPullQPS"` // that begin
	Burst     int  `mapstructure:"registryBurst"`   // at once
}

// parallel is how many images may be fetched at once, 0 for any number.
func (c ImagesConfig) parallel() int {
	if c.Serialize {
		return 1
	}
	return c.Parallel
}

// limits are those in the words of the runtime.
func (c ImagesConfig) limits() runtime.ImageLimits {
	return runtime.ImageLimits{High: c.High, Low: c.Low, MinAge: c.MinAge}
}

// validate reports what cannot work, as kubelet does.
func (c ImagesConfig) validate() error {
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("images."+key+": "+format, args...))
	}
	for _, percent := range []struct {
		key   string
		value int
	}{{"imageGCHighThresholdPercent", c.High}, {"imageGCLowThresholdPercent", c.Low}} {
		if percent.value < 0 || percent.value > 100 {
			wrong(percent.key, "%d is no percentage between 0 and 100", percent.value)
		}
	}
	if c.Low >= c.High {
		wrong("imageGCLowThresholdPercent", "%d must be below imageGCHighThresholdPercent %d", c.Low, c.High)
	}
	for _, number := range []struct {
		key   string
		value int
	}{{"maxParallelImagePulls", c.Parallel}, {"registryPullQPS", c.PerSecond}, {"registryBurst", c.Burst}} {
		if number.value < 0 {
			wrong(number.key, "%d is negative; 0 means no limit", number.value)
		}
	}
	if c.MinAge < 0 {
		wrong("imageMinimumGCAge", "%s is negative", c.MinAge)
	}
	return errors.Join(errs...)
}
