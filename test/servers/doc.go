// Package servers holds the tests that build with real registries (CNCF distribution): with passwords, tokens, TLS, client
// certificates, as mirrors, over bad networks. Each test asks one thing of whole builds: that they succeed, or fail with a
// reason and without a tag; and that they print no secret.
//
// They need Debian's docker-registry. Without it they skip; with HAKO_CI set they fail instead.
package servers
