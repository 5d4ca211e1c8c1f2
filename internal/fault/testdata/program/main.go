// Program passes two effects and says so.
package main

import "dunnage/internal/fault"

func main() {
	for _, name := range []string{"first", "second"} {
		if err := fault.Do(name, func() error { println(name); return nil }); err != nil {
			panic(err)
		}
	}
}
