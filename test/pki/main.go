// Command pki makes the certificates of the test cluster and a kubeconfig for each of its components: one authority, a
// serving certificate for the API server and each kubelet, and a client certificate for everybody who calls the API server.
//
// Usage: pki DIR SERVER NODE=ADDRESS... where SERVER is the API server's address in the nodes' network. Kubernetes takes
// a client's name and groups from its certificate's CN and O (kubernetes.io/docs/reference/access-authn-authz/authentication).
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lifetime is long enough for any cluster that is for tests.
const lifetime = 30 * 24 * time.Hour

// serviceIP is the API server's address among the Services: the first of the range that hack/cluster gives it.
const serviceIP = "10.96.0.1"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: pki DIR SERVER NODE=ADDRESS...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		os.Exit(1)
	}
}

func run(dir, server string, nodes []string) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	p := &pki{dir: dir, server: "https://" + net.JoinHostPort(server, "6443"), ca: ca}
	if err := p.write("ca.crt", encode("CERTIFICATE", ca.der)); err != nil {
		return err
	}
	p.serving("apiserver", server, serviceIP, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
	p.client("apiserver-kubelet", "kube-apiserver", "system:masters")
	p.key("service-account")
	p.client("admin", "kubernetes-admin", "system:masters")
	p.client("controller-manager", "system:kube-controller-manager", "")
	p.client("scheduler", "system:kube-scheduler", "")
	p.client("proxy", "system:kube-proxy", "")
	p.client("front-proxy", "front-proxy", "")
	for _, n := range nodes {
		name, address, ok := strings.Cut(n, "=")
		if !ok {
			return fmt.Errorf("%q is not NODE=ADDRESS", n)
		}
		p.serving("kubelet-"+name, name, address)
		p.client(name, "system:node:"+name, "system:nodes")
	}
	return p.err
}

type authority struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template("krunpod-test-ca", "")
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, der, key}, err
}

func template(name, group string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if group != "" {
		t.Subject.Organization = []string{group}
	}
	return t
}

// pki writes below dir; the first error stays.
type pki struct {
	dir, server string
	ca          *authority
	err         error
}

func (p *pki) write(name string, data []byte) error {
	return os.WriteFile(filepath.Join(p.dir, name), data, 0o600)
}

// serving writes NAME.crt and NAME.key for a server under those names and addresses.
func (p *pki) serving(name string, hosts ...string) {
	t := template(name, "")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	p.issue(name, t)
}

// client writes NAME.crt, NAME.key and NAME.kubeconfig.
func (p *pki) client(name, user, group string) {
	t := template(user, group)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, key := p.issue(name, t)
	if p.err != nil {
		return
	}
	inline := base64.StdEncoding.EncodeToString
	p.err = p.write(name+".kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: krunpod
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %q
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: krunpod
  context: {cluster: krunpod, user: %q}
current-context: krunpod
`, p.server, inline(encode("CERTIFICATE", p.ca.der)), user, inline(cert), inline(key), user))
}

func (p *pki) issue(name string, t *x509.Certificate) (cert, keyPEM []byte) {
	key, keyPEM := p.key(name)
	if p.err != nil {
		return nil, nil
	}
	var der []byte
	if der, p.err = x509.CreateCertificate(rand.Reader, t, p.ca.cert, &key.PublicKey, p.ca.key); p.err != nil {
		return nil, nil
	}
	cert = encode("CERTIFICATE", der)
	p.err = p.write(name+".crt", cert)
	return cert, keyPEM
}

// key writes NAME.key and, for whoever only verifies, NAME.pub.
func (p *pki) key(name string) (key *ecdsa.PrivateKey, private []byte) {
	if p.err != nil {
		return nil, nil
	}
	if key, p.err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); p.err != nil {
		return nil, nil
	}
	var der []byte
	if der, p.err = x509.MarshalECPrivateKey(key); p.err != nil {
		return nil, nil
	}
	private = encode("EC PRIVATE KEY", der)
	if p.err = p.write(name+".key", private); p.err != nil {
		return nil, nil
	}
	if der, p.err = x509.MarshalPKIXPublicKey(&key.PublicKey); p.err != nil {
		return nil, nil
	}
	p.err = p.write(name+".pub", encode("PUBLIC KEY", der))
	return key, private
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
