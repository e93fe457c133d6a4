package pamtest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pamsidecar/pamsidecar/pam"
	"github.com/pamsidecar/pamsidecar/pam/pamtest"
)

// A client is tested against a lost answer: the token exists, but nobody holds it.
func Example() {
	emulator := pamtest.New(pamtest.Config{})
	client, err := pam.NewClient(pam.ClientConfig{Keyset: emulator.Keyset(), Transport: emulator.Transport()})
	if err != nil {
		fmt.Println(err)
		return
	}
	grant := pam.Grant{
		TTL:       15 * time.Minute,
		UUID:      "alice",
		Resources: pam.Permissions{Channels: map[string]pam.Permission{"orders": pam.Read | pam.Write}},
	}
	token, err := client.Grant(context.Background(), grant)
	fmt.Println(token.UUID, token.TTL, emulator.Live(token.Raw), err)

	emulator.SetFault(pamtest.Fault{Op: pam.OpGrant, Kind: pamtest.KindCut, AfterWork: true, Count: 1})
	_, err = client.Grant(context.Background(), grant)
	fmt.Println(err != nil, len(emulator.Grants()))
	// Output:
	// alice 15m0s true <nil>
	// true 2
}
