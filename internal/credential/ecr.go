//go:build !slim

package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// publicRegion is where tokens for the public registry come from, wherever one is.
	publicRegion = "us-east-1"
)

// fromECR asks AWS for a token, with the SDK's own chain of identities: variables, files, web identity, the machine's role.
func fromECR(ctx context.Context, host string) (*authn.AuthConfig, error) {
	if host == publicECR {
		return fromPublicECR(ctx)
	}
	region, fips, ok := parseECR(host)
	if !ok {
		return nil, nil
	}
	options := []func(*config.LoadOptions) error{config.WithRegion(region)}
	if fips {
		options = append(options, config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w", err)
	}
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, fmt.Errorf("get a token for ECR in %s: %w", region, err)
	}
	if len(out.AuthorizationData) == 0 {
		return nil, errors.New("get a token for ECR: the answer has none")
	}
	return decodeECR(out.AuthorizationData[0].AuthorizationToken)
}

func fromPublicECR(ctx context.Context) (*authn.AuthConfig, error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(publicRegion))
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w", err)
	}
	out, err := ecrpublic.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, fmt.Errorf("get a token for %s: %w", publicECR, err)
	}
	if out.AuthorizationData == nil {
		return nil, fmt.Errorf("get a token for %s: the answer has none", publicECR)
	}
	return decodeECR(out.AuthorizationData.AuthorizationToken)
}

// parseECR takes the name of a private registry apart: ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com, and the names that
// other partitions and IPv6 have.
func parseECR(host string) (region string, fips, ok bool) {
	name := regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.(?:com|com\.cn|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)
	m := name.FindStringSubmatch(host)
	if m == nil {
		return "", false, false
	}
	return m[2], m[1] != "", true
}

// decodeECR decodes "user:password" in base64. Its errors do not show it.
func decodeECR(token *string) (*authn.AuthConfig, error) {
	text, err := base64.StdEncoding.DecodeString(aws.ToString(token))
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return nil, errors.New("the token of ECR cannot be decoded")
	}
	return &authn.AuthConfig{Username: user, Password: password}, nil
}
