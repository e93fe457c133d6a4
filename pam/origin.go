package pam

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// parseOrigin returns scheme and host. Errors do not repeat the text, which may
// hold a password by mistake.
func parseOrigin(text string, insecure bool) (url.URL, error) {
	if text == "" {
		text = DefaultOrigin
	}
	if !strings.Contains(text, "://") {
		return url.URL{}, errors.New("origin: has no scheme: write https:// and the host")
	}
	u, err := url.Parse(text)
	if err != nil {
		return url.URL{}, errors.New("origin: is not a URL: write https:// and the host")
	}
	switch {
	case u.User != nil:
		return url.URL{}, errors.New("origin: must not hold a user or a password")
	case u.Hostname() == "":
		return url.URL{}, errors.New("origin: has no host: write https:// and the host")
	case u.Path != "" && u.Path != "/":
		return url.URL{}, errors.New("origin: must not have a path: write scheme and host only")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return url.URL{}, errors.New("origin: must not have a query or a fragment: write scheme and host only")
	case u.Scheme == "https":
	case u.Scheme != "http":
		return url.URL{}, fmt.Errorf("origin: scheme %q is not supported: use https", u.Scheme)
	case !insecure && !loopback(u.Hostname()):
		return url.URL{}, errors.New("origin: plain http is only for loopback hosts: use https, or allow it with insecure_origin")
	}
	return url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// loopback reports whether host is localhost, in 127.0.0.0/8, or ::1.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// newTransport returns the Client's own transport. It speaks HTTP/1.1 only: the
// few requests in flight need no multiplexing, and a connection that stopped
// answering is dropped with the one request that found out.
func newTransport(caFile string) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		roots, err := readRoots(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: maxAnswer,
		Protocols:              &protocols,
	}, nil
}

// readRoots returns the system's roots and those of the file.
func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file: no certificate in PEM form in %s", path)
	}
	return roots, nil
}
