package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("images: ")
	out := flag.String("out", "images.tar", "archive to write")
	suite := flag.Bool("conformance", false, "the conformance suite's images instead of the tests' own")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: images [-conformance] [-out FILE]\n\nBuild the images of the tests as one archive for ctr images import.")
		flag.PrintDefaults()
	}
	flag.Parse()
	recipes := catalog
	if *suite {
		recipes = conformance
	}
	if err := build(recipes, *out); err != nil {
		log.Fatal(err)
	}
}

func build(recipes []recipe, out string) error {
	work, err := os.MkdirTemp("", "krunpod-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	refs := map[name.Reference]v1.Image{}
	for _, r := range recipes {
		tag, err := name.NewTag(r.name)
		if err != nil {
			return fmt.Errorf("image %s: %w", r.name, err)
		}
		if refs[tag], err = r.build(work); err != nil {
			return fmt.Errorf("image %s: %w", r.name, err)
		}
		log.Printf("built %s", r.name)
	}
	tmp := out + ".new"
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := tarball.MultiRefWriteToFile(tmp, refs); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return os.Rename(tmp, out)
}

// build makes the image: one layer and its configuration.
func (r recipe) build(work string) (v1.Image, error) {
	files, err := r.files(work)
	if err != nil {
		return nil, err
	}
	layer, err := newLayer(files)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS, cf.Config = "amd64", "linux", r.config
	return mutate.ConfigFile(img, cf)
}
