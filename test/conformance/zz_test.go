package conformance

import (
	"fmt"
	"hako/internal/event"
)

type printer struct{}

func (printer) Emit(e event.Event) {
	switch e := e.(type) {
	case event.StepOutput:
		fmt.Printf("   | %s\n", e.Line)
	case event.Debug:
		fmt.Printf("   D %s\n", e.Message)
	case event.Info:
		fmt.Printf("   I %s\n", e.Message)
	}
}
