// Command registry serves the images of an archive (docker save's format) read-only on a loopback address, for test
// suites that insist on pulling. It knows the two requests that a pull makes (OCI distribution spec, "Pull").
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	addr := flag.String("listen", "localhost:5000", "loopback address to serve on; the images' names begin with it")
	archive := flag.String("archive", "images.tar", "archive with the images")
	flag.Parse()
	if err := serve(*addr, *archive); err != nil {
		log.Fatal("registry: ", err)
	}
}

func serve(addr, archive string) error {
	s, err := load(archive)
	if err != nil {
		return fmt.Errorf("read %s: %w", archive, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		return fmt.Errorf("listen on %s: not a loopback address", addr)
	}
	log.Printf("registry: %d images on %s", len(s.tags), addr)
	return http.Serve(l, s)
}

// store is what is served: manifests by "repository:tag", and all content by digest.
type store struct {
	tags    map[string]v1.Hash
	content map[v1.Hash]content
}

type content struct {
	mediaType string
	size      int64
	open      func() (io.ReadCloser, error)
}

func load(archive string) (*store, error) {
	s := &store{tags: map[string]v1.Hash{}, content: map[v1.Hash]content{}}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(archive) })
	if err != nil {
		return nil, err
	}
	for _, entry := range manifest {
		for _, text := range entry.RepoTags {
			if err := s.add(archive, text); err != nil {
				return nil, fmt.Errorf("image %s: %w", text, err)
			}
		}
	}
	return s, nil
}

func (s *store) add(archive, text string) error {
	tag, err := name.NewTag(text)
	if err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		size, err := l.Size()
		if err != nil {
			return err
		}
		s.content[digest] = content{"application/octet-stream", size, l.Compressed}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	mediaType, err := img.MediaType()
	if err != nil {
		return err
	}
	if _, err := s.addBytes("application/octet-stream", config); err != nil {
		return err
	}
	s.tags[tag.RepositoryStr()+":"+tag.TagStr()], err = s.addBytes(string(mediaType), manifest)
	return err
}

func (s *store) addBytes(mediaType string, data []byte) (v1.Hash, error) {
	digest, size, err := v1.SHA256(strings.NewReader(string(data)))
	s.content[digest] = content{mediaType, size, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(data))), nil
	}}
	return digest, err
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		http.NotFound(w, r)
		return
	}
	if path == "" {
		return
	}
	var digest v1.Hash
	if repo, ref, ok := strings.Cut(path, "/manifests/"); ok {
		if digest, ok = s.tags[repo+":"+ref]; !ok {
			digest, _ = v1.NewHash(ref)
		}
	} else if _, ref, ok := strings.Cut(path, "/blobs/"); ok {
		digest, _ = v1.NewHash(ref)
	}
	c, ok := s.content[digest]
	if !ok {
		http.NotFound(w, r)
		return
	}
	c.write(w, r.Method, digest)
}

func (c content) write(w http.ResponseWriter, method string, digest v1.Hash) {
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(c.size))
	w.Header().Set("Docker-Content-Digest", digest.String())
	if method == http.MethodHead {
		return
	}
	body, err := c.open()
	if err != nil {
		// The length is promised already: a broken connection tells the client.
		log.Printf("registry: open %s: %v", digest, err)
		return
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		log.Printf("registry: send %s: %v", digest, err)
	}
}
