// Command image builds the installer's container image without a container engine, as an archive that ctr images import and
// docker load read. Equal files give an equal image: it has no times, no owners and no history.
//
// Enters: out/dist and krun-installer. Leaves: an archive. Must never happen here: a base image; there is nothing in the
// image but what Krunpod built.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	ref := flag.String("name", "localhost/krunpod/installer:dev", "the image's name")
	dist := flag.String("dist", "out/dist", "directory with bin, lib and etc for the nodes")
	binary := flag.String("installer", "out/installer/krun-installer", "the installer, static")
	out := flag.String("out", "out/image.tar", "archive to write")
	flag.Parse()
	digest, err := build(*ref, *dist, *binary, *out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s@%s\n", *ref, digest)
}

func build(ref, dist, binary, out string) (v1.Hash, error) {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("image name: %w", err)
	}
	img, err := image(dist, binary)
	if err != nil {
		return v1.Hash{}, err
	}
	// Renamed, so that an archive that is there is whole.
	tmp := out + ".new"
	if err := tarball.WriteToFile(tmp, tag, img); err != nil {
		return v1.Hash{}, fmt.Errorf("write %s: %w", out, err)
	}
	if err := os.Rename(tmp, out); err != nil {
		return v1.Hash{}, err
	}
	return img.Digest()
}

// image has one layer for the installer and one for what it lays on nodes, which changes less often.
func image(dist, binary string) (v1.Image, error) {
	payload, err := layer(func(w *tar.Writer) error { return addTree(w, dist, "krunpod") })
	if err != nil {
		return nil, fmt.Errorf("%s: %w: run make build", dist, err)
	}
	installer, err := layer(func(w *tar.Writer) error {
		for _, dir := range []string{"host", "run"} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
				return err
			}
		}
		return addFile(w, binary, "krun-installer", 0o755)
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, payload, installer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS = runtime.GOARCH, "linux"
	cf.Config = v1.Config{Entrypoint: []string{"/krun-installer"}, Labels: map[string]string{
		"org.opencontainers.image.title": "Krunpod installer", "org.opencontainers.image.licenses": "Apache-2.0"}}
	return mutate.ConfigFile(img, cf)
}

func layer(fill func(*tar.Writer) error) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := fill(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
}

// addTree adds the directories and files below dir, in the order of their names.
func addTree(w *tar.Writer, dir, as string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		at := filepath.Join(as, rel)
		if e.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755})
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return addFile(w, path, at, mode)
	})
}

// addFile does not take the file's own mode: the umask of the build would be in the image.
func addFile(w *tar.Writer, path, as string, mode int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: as, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
