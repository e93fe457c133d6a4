package pam

import (
	"bytes"
	"encoding/json"
	"strings"
)

// errorBody is what can be learned from the body of an answer that is no success.
// PubNub's services send several shapes; whatever is not understood stays empty.
// The texts are as they came.
type errorBody struct {
	Message  string
	Source   string // the part of the service, "grant"
	Service  string // "Access Manager", "Balancer"
	Details  []errorDetail
	Channels []string // that access was denied to
	Groups   []string
}

type errorDetail struct {
	Message      string `json:"message"`
	Location     string `json:"location"`
	LocationType string `json:"locationType"`
}

// maxErrorItems bounds the lists of an errorBody.
const maxErrorItems = 16

// parseErrorBody reads the structured form, where error is an object; the flat
// form, where it is a boolean, a number or the text itself; error_message; and the
// array [0,"text","timetoken"].
func parseErrorBody(data []byte) errorBody {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return errorBody{}
	}
	if data[0] == '[' {
		return errorBody{Message: arrayMessage(data)}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return errorBody{}
	}
	body := errorBody{
		Message: firstText(fields["message"], fields["error_message"]),
		Service: jsonText(fields["service"]),
	}
	body.readError(fields["error"])
	body.readPayload(fields["payload"])
	return body
}

// readError reads the field error, an object or a text; anything else is a flag.
func (b *errorBody) readError(raw json.RawMessage) {
	if text := jsonText(raw); text != "" && b.Message == "" {
		b.Message = text
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return
	}
	if text := firstText(fields["message"], fields["error_message"]); text != "" {
		b.Message = text
	}
	b.Source = jsonText(fields["source"])
	if b.Service == "" {
		b.Service = jsonText(fields["service"])
	}
	b.readDetails(fields["details"])
}

// readDetails reads a list of details, or a single one.
func (b *errorBody) readDetails(raw json.RawMessage) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		items = []json.RawMessage{raw}
	}
	for _, item := range items[:min(len(items), maxErrorItems)] {
		var fields map[string]json.RawMessage
		if json.Unmarshal(item, &fields) != nil {
			if text := jsonText(item); text != "" {
				b.Details = append(b.Details, errorDetail{Message: text})
			}
			continue
		}
		detail := errorDetail{
			Message:      jsonText(fields["message"]),
			Location:     jsonText(fields["location"]),
			LocationType: jsonText(fields["locationType"]),
		}
		if detail != (errorDetail{}) {
			b.Details = append(b.Details, detail)
		}
	}
}

func (b *errorBody) readPayload(raw json.RawMessage) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return
	}
	b.Channels = jsonTexts(fields["channels"])
	b.Groups = jsonTexts(fields["channel-groups"])
}

// detail joins what the service says in the details, or names what was denied.
func (b errorBody) detail() string {
	var texts []string
	for _, d := range b.Details {
		if d.Message != "" {
			texts = append(texts, d.Message)
		}
	}
	if len(texts) == 0 && len(b.Channels)+len(b.Groups) > 0 {
		texts = append(texts, "denied: "+strings.Join(append(b.Channels[:len(b.Channels):len(b.Channels)], b.Groups...), ", "))
	}
	return strings.Join(texts, " ")
}

// location is that of the first detail that has one.
func (b errorBody) location() string {
	for _, d := range b.Details {
		if d.Location != "" {
			return d.Location
		}
	}
	return ""
}

// says reports whether the message or a detail is one of the texts.
func (b errorBody) says(texts ...string) bool {
	for _, text := range texts {
		if sameText(b.Message, text) {
			return true
		}
		for _, d := range b.Details {
			if sameText(d.Message, text) {
				return true
			}
		}
	}
	return false
}

// arrayMessage is the first text in an array.
func arrayMessage(data []byte) string {
	var items []json.RawMessage
	if json.Unmarshal(data, &items) != nil {
		return ""
	}
	return firstText(items...)
}

func firstText(items ...json.RawMessage) string {
	for _, item := range items {
		if text := jsonText(item); text != "" {
			return text
		}
	}
	return ""
}

// jsonText is the text of a JSON string, "" for anything else.
func jsonText(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return ""
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

func jsonTexts(raw json.RawMessage) []string {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return nil
	}
	var texts []string
	for _, item := range items[:min(len(items), maxErrorItems)] {
		if text := jsonText(item); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}
