package sandbox

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// volumesDir holds what containers of the pod have together: no container's id begins with a dot (ValidateID).
const volumesDir = ".volumes"

func isVolume(name string) bool { return strings.HasPrefix(name, volumesDir+"/") }

// podVolumes are the paths of the host that are attached to the share once for all containers that show them in the same
// way. Attached twice, a directory would be two file systems in the guest, with inodes of their own for the same files:
// a socket that one container binds would refuse the other, locks would not exclude, mapped memory would not be shared,
// and a file's new length would be seen after seconds.
//
// The share's mutex guards it.
type podVolumes struct {
	list map[volumeKey]*podVolume
	// made counts them, so that no name is used twice: the guest may remember the old one.
	made int
}

// volumeKey is equal for the same file of the host that is to be shown in the same way.
type volumeKey struct {
	Attach
	// owners are the mappings of an idmapped mount.
	owners          string
	dev, ino, mount uint64
}

type podVolume struct {
	name string
	// users are the containers that have it.
	users map[string]bool
}

// name is where container id finds what a shows, and empty if it cannot have that together with others: mounts below it
// may come and go until another container looks.
func (v *podVolumes) name(id string, a Attach, owners string) (string, error) {
	if a.Follow {
		return "", nil
	}
	if below, err := HasMountsBelow(a.Source); below || err != nil {
		return "", err
	}
	var st unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	if err := unix.Statx(unix.AT_FDCWD, a.Source, 0, mask, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", a.Source, err)
	}
	a.UserNS = nil // a descriptor; owners say what it is for
	key := volumeKey{a, owners, unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, st.Mnt_id}
	if v.list[key] == nil {
		if v.list == nil {
			v.list = map[volumeKey]*podVolume{}
		}
		v.made++
		v.list[key] = &podVolume{name: path.Join(volumesDir, fmt.Sprint(v.made)), users: map[string]bool{}}
	}
	v.list[key].users[id] = true
	return v.list[key].name, nil
}

// release takes container id from the users of all volumes, and returns the names of those that have none any more.
func (v *podVolumes) release(id string) (unused []string) {
	for key, vol := range v.list {
		delete(vol.users, id)
		if len(vol.users) == 0 {
			unused = append(unused, vol.name)
			delete(v.list, key)
		}
	}
	return unused
}
