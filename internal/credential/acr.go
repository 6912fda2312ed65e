//go:build !slim

package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// acrUser says that the password is a token:
	// https://learn.microsoft.com/azure/container-registry/container-registry-authentication
	acrUser        = "00000000-0000-0000-0000-000000000000"
	acrAnswerLimit = 64 << 10
)

// fromACR takes a service principal, workload identity or the machine's managed identity, and exchanges Azure's token for one of
// the registry.
func fromACR(ctx context.Context, host string) (*authn.AuthConfig, error) {
	c, ok := acrCloud(host)
	if !ok {
		return nil, nil
	}
	identity, err := azureIdentity(c.configuration)
	if err != nil {
		return nil, fmt.Errorf("find Azure credentials: %w", err)
	}
	token, err := identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return nil, fmt.Errorf("get a token from Azure: %w", err)
	}
	return exchange(ctx, http.DefaultClient, "https://"+host, token.Token)
}

// azureCloud is one of Azure's clouds.
type azureCloud struct {
	configuration cloud.Configuration
	scope         string
}

// acrCloud knows a registry's cloud by its name.
func acrCloud(host string) (azureCloud, bool) {
	switch {
	case strings.HasSuffix(host, ".azurecr.io"):
		return azureCloud{cloud.AzurePublic, "https://management.azure.com/.default"}, true
	case strings.HasSuffix(host, ".azurecr.cn"):
		return azureCloud{cloud.AzureChina, "https://management.chinacloudapi.cn/.default"}, true
	case strings.HasSuffix(host, ".azurecr.us"):
		return azureCloud{cloud.AzureGovernment, "https://management.usgovcloudapi.net/.default"}, true
	}
	return azureCloud{}, false
}

// azureIdentity chooses by the variables that Azure's own software reads.
func azureIdentity(c cloud.Configuration) (azcore.TokenCredential, error) {
	options := azcore.ClientOptions{Cloud: c}
	switch {
	case os.Getenv("AZURE_CLIENT_SECRET") != "" || os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH") != "":
		return azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: options})
	case os.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: options})
	}
	managed := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		managed.ID = azidentity.ClientID(id)
	}
	return azidentity.NewManagedIdentityCredential(managed)
}

// exchange asks the registry at base for a token of its own.
func exchange(ctx context.Context, client *http.Client, base, token string) (*authn.AuthConfig, error) {
	u, err := url.Parse(base + "/oauth2/exchange")
	if err != nil {
		return nil, fmt.Errorf("exchange the token: %w", err)
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {u.Host}, "access_token": {token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("exchange the token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("exchange the token: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("exchange the token at %s: %s", u.Host, resp.Status)
	}
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, acrAnswerLimit)).Decode(&answer); err != nil || answer.RefreshToken == "" {
		return nil, errors.New("exchange the token: the registry's answer has none")
	}
	return &authn.AuthConfig{Username: acrUser, Password: answer.RefreshToken}, nil
}
