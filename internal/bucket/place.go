package bucket

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"hako/internal/diag"
)

// Service is a kind of object storage.
type Service uint8

// The services.
const (
	S3 Service = iota + 1
	Google
	Azure
)

// Place names an object, or the objects whose keys begin with Key.
type Place struct {
	Service Service
	// Bucket is the bucket, in Azure the container. Key may be empty.
	Bucket, Key string
	// Version is the one version that is meant, as the service names it; empty means the newest.
	Version string
	// Host is the storage account's host in Azure, as it was written; empty elsewhere.
	Host string

	// query is the shared access signature of an Azure URL: a secret.
	query string
}

// String is the place as a URL without secrets.
func (p Place) String() string { return p.url(p.Key) }

// url is what people call an object of the bucket.
func (p Place) url(key string) string {
	head := "s3://" + p.Bucket
	switch p.Service {
	case Google:
		head = "gs://" + p.Bucket
	case Azure:
		head = "https://" + p.Host + "/" + p.Bucket
	case S3:
	}
	if key == "" {
		return head
	}
	return head + "/" + key
}

// account is the name of the storage account.
func (p Place) account() string {
	name, _, _ := strings.Cut(p.Host, ".")
	return strings.TrimSuffix(name, "-secondary")
}

// IsPlace says whether text is to be read by [Parse]: it begins with s3:// or gs://, or is the URL of something that is, or
// pretends to be, in Azure's blob storage.
func IsPlace(text string) bool {
	return strings.HasPrefix(text, "s3://") || strings.HasPrefix(text, "gs://") || IsAzure(text)
}

// IsAzure says whether text is the URL of something that is, or pretends to be, in Azure's blob storage.
func IsAzure(text string) bool {
	if !strings.HasPrefix(text, "https://") && !strings.HasPrefix(text, "http://") {
		return false
	}
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	return regexp.MustCompile(`\.blob\.(core\.[a-z]|storage\.azure\.)`).MatchString(strings.ToLower(u.Hostname()))
}

// azureHost matches the hosts of blob storage in Azure's clouds, and only them: whoever else has a name that looks like one
// of theirs must not get what only Azure may see.
const azureHost = `^[a-z0-9]{3,24}(-secondary)?(\.privatelink)?\.` +
	`(blob\.core\.windows\.net|blob\.core\.chinacloudapi\.cn|blob\.core\.cloudapi\.de|blob\.core\.usgovcloudapi\.net|z[0-9]{1,2}\.blob\.storage\.azure\.net)$`

// Parse reads s3://BUCKET/KEY[?versionId=VERSION], gs://BUCKET/KEY[#GENERATION] and https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY[?SAS].
// What is wrong is a *diag.Error without a position, in which no secret is.
func Parse(text string) (Place, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case ok && scheme == "s3":
		return parseS3(rest)
	case ok && scheme == "gs":
		return parseGoogle(rest)
	case IsAzure(text):
		return parseAzure(text)
	}
	return Place{}, &diag.Error{What: "this is no place in object storage", Hint: "Write s3://bucket/key, gs://bucket/object or https://account.blob.core.windows.net/container/blob."}
}

func parseS3(rest string) (Place, error) {
	rest, query, ok := strings.Cut(rest, "?")
	p := Place{Service: S3}
	if ok {
		values, err := url.ParseQuery(query)
		p.Version = values.Get("versionId")
		if err != nil || p.Version == "" || len(values) != 1 {
			return Place{}, &diag.Error{What: "s3://" + rest + ": after ? there is something other than versionId=VERSION", Hint: "Write %3F for a question mark in a key."}
		}
	}
	return p.split(rest, "s3")
}

func parseGoogle(rest string) (Place, error) {
	rest, generation, ok := strings.Cut(rest, "#")
	if ok && !regexp.MustCompile(`^[0-9]{1,19}$`).MatchString(generation) {
		return Place{}, &diag.Error{What: "gs://" + rest + ": after # there is something other than a generation", Hint: "Write %23 for a # in an object's name."}
	}
	return Place{Service: Google, Version: generation}.split(rest, "gs")
}

// split takes bucket and key out of what stands behind the scheme. Keys are escaped as in URLs; what is no escape stands for itself.
func (p Place) split(rest, scheme string) (Place, error) {
	var key string
	p.Bucket, key, _ = strings.Cut(rest, "/")
	if plain, err := url.PathUnescape(key); err == nil {
		key = plain
	}
	p.Key = key
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,221}$`).MatchString(p.Bucket) {
		return Place{}, &diag.Error{What: fmt.Sprintf("%s://%s: %q is no name of a bucket", scheme, rest, p.Bucket), Hint: fmt.Sprintf("Write %s://bucket/key.", scheme)}
	}
	return p, nil
}

func parseAzure(text string) (Place, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Place{}, &diag.Error{What: "the URL of a blob cannot be read", Hint: "Write https://account.blob.core.windows.net/container/blob."}
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, ":443")
	what := fmt.Sprintf("https://%s%s", u.Host, u.Path)
	switch {
	case !regexp.MustCompile(azureHost).MatchString(host):
		return Place{}, &diag.Error{
			What: what + ": the host looks like Azure's blob storage and is not",
			Hint: "Check the host: hosts are ACCOUNT.blob.core.windows.net, and those of Azure's other clouds.",
		}
	case u.Scheme != "https":
		return Place{}, &diag.Error{What: what + ": blobs are not fetched over plain http", Hint: "Write https://."}
	case u.User != nil || u.Fragment != "":
		return Place{}, &diag.Error{What: what + ": the URL of a blob has neither a user nor a fragment", Hint: "Set AZURE_STORAGE_ACCESS_KEY, or append a shared access signature."}
	}
	container, key, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if container == "" {
		return Place{}, &diag.Error{What: what + ": the container is missing", Hint: "Write https://account.blob.core.windows.net/container/blob."}
	}
	return Place{Service: Azure, Bucket: container, Key: key, Host: host, query: u.RawQuery}, nil
}
