package main

import (
	"archive/tar"
	"bytes"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// file is one entry of a layer. Exactly one of data, link and symlink says what it is; none is a directory.
type file struct {
	path string
	// mode is that of a hard link too: without it an extraction would take the mode from the shared inode.
	mode    int64
	data    []byte
	link    string
	symlink string
}

func (f file) header() *tar.Header {
	h := &tar.Header{Name: f.path, Mode: f.mode, Format: tar.FormatPAX}
	switch {
	case f.link != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.link
	case f.symlink != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.symlink
	case f.data != nil:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(f.data))
	default:
		h.Typeflag = tar.TypeDir
	}
	return h
}

// newLayer packs files in their order; it has no times and no owners, so that equal files give an equal layer.
func newLayer(files []file) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(f.header()); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
}
