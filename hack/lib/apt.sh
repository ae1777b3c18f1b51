# shellcheck shell=bash
# A private apt beside the machine's own: its own configuration, lists and cache under the cache directory, the mirror
# taken from the machine's sources at run time. Packages are unpacked into directories of ours; nothing is installed.
# To be sourced after common.sh.

APT_DIR=$CACHE/apt

# apt_mirror: the address the machine itself gets Debian's main archive from.
apt_mirror() {
	local mirror
	# shellcheck disable=SC2016 # apt's own placeholders
	mirror=$(env -u APT_CONFIG apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(LABEL) $(ORIGIN)' 'Created-By: Packages' |
		awk -v s="$(pin DEBIAN_SUITE)" '$2 == s {print $1; exit}')
	if [[ -z $mirror ]]; then
		mirror=$(sed -n -E "s/^deb (\[[^]]*\] )?([^ ]+) $(pin DEBIAN_SUITE) .*/\2/p" /etc/apt/sources.list 2>/dev/null | head -n 1)
	fi
	[[ -n $mirror ]] || die "no source for Debian $(pin DEBIAN_SUITE) in /etc/apt: add one and run again"
	printf '%s\n' "${mirror%/}"
}

# apt_private COMMAND...: runs an apt command with the private configuration. It resolves against an empty system, so
# what it downloads is the whole closure and does not depend on what this machine has installed.
apt_private() { APT_CONFIG=$APT_DIR/apt.conf "$@"; }

# apt_private_update: writes the private configuration and fetches its lists when they are older than a day.
apt_private_update() {
	local suite mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=$(apt_mirror)
	mkdir -p "$APT_DIR"/{state/lists/partial,cache/archives/partial,etc/preferences.d,etc/apt.conf.d,etc/sources.list.d}
	exec {APT_LOCK}>"$APT_DIR/lock"
	flock "$APT_LOCK"
	: >"$APT_DIR/status"
	for suite in "$(pin DEBIAN_SUITE)" "$(pin DEBIAN_SUITE)-updates" "$(pin DEBIAN_SUITE)-backports" trixie forky sid; do
		echo "deb [signed-by=$keyring check-valid-until=no] $mirror $suite main"
	done >"$APT_DIR/sources.list.new"
	# The newer suites are there to be asked by name; dependencies come from the node's own release.
	for suite in trixie forky sid; do
		printf 'Package: *\nPin: release n=%s\nPin-Priority: 1\n\n' "$suite"
	done >"$APT_DIR/etc/preferences"
	cat >"$APT_DIR/apt.conf" <<-CONF
		Dir "$APT_DIR/";
		Dir::State "state";
		Dir::State::status "$APT_DIR/status";
		Dir::Cache "cache";
		Dir::Etc "etc";
		Dir::Etc::sourcelist "$APT_DIR/sources.list";
		Dir::Etc::sourceparts "sources.list.d";
		Dir::Etc::main "none";
		Dir::Etc::parts "apt.conf.d";
		Acquire::Languages "none";
		Acquire::Retries "3";
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
	CONF
	if ! cmp -s "$APT_DIR/sources.list.new" "$APT_DIR/sources.list" ||
		[[ -z $(find "$APT_DIR/updated" -mmin -1440 2>/dev/null) ]]; then
		mv "$APT_DIR/sources.list.new" "$APT_DIR/sources.list"
		# A suite that this mirror lacks is no reason to stop: what needs it says so.
		apt_private apt-get -q update || say "some package lists could not be fetched; going on with the others"
		touch "$APT_DIR/updated"
	fi
	exec {APT_LOCK}>&-
}

# apt_has PACKAGE VERSION: whether some suite of the mirror has exactly that version. apt-cache show succeeds without it, too.
apt_has() { apt_private apt-cache madison "$1" | awk -F' *\\| *' -v v="$2" '$2 == v {found = 1} END {exit !found}'; }

# apt_newest PACKAGE PREFIX: the newest version that begins with PREFIX, in the place of the pinned one: it has no checksum but
# apt's, and the product says so from then on (SUBSTITUTED, hack/cached).
apt_newest() {
	local version
	version=$(apt_private apt-cache madison "$1" | awk -F' *\\| *' -v p="$2" 'index($2, p) == 1 {print $2; exit}')
	[[ -z $version ]] || echo "$1 $version" >>"$SUBSTITUTED"
	printf '%s\n' "$version"
}

# apt_unpack DIR [--deps] PACKAGE=VERSION... : downloads, verifies (apt's signatures) and unpacks into DIR; with --deps
# the whole closure except the C library, which is the host's.
apt_unpack() {
	local dir=$1 deb debs
	shift
	debs=$(mktemp -d "$CACHE/tmp.debs.XXXXXX")
	if [[ $1 == --deps ]]; then
		shift
		mkdir -p "$debs/partial"
		apt_private apt-get -q -y -o "Dir::Cache::archives=$debs" -o Debug::NoLocking=1 \
			install --download-only "$@"
	else
		(cd "$debs" && apt_private apt-get -q download "$@")
	fi
	for deb in "$debs"/*.deb; do
		case $(basename "$deb") in
		libc6_* | libc-bin_* | base-files_* | debconf_* | perl-base_* | dpkg_* | tar_*) continue ;;
		esac
		sha256sum "$deb" | sed "s|$debs/||" >>"$dir/.debs"
		dpkg-deb -x "$deb" "$dir"
	done
	rm -rf "$debs"
}

# apt_check DIR PACKAGE SHA256: compares what was unpacked with a pinned checksum; an empty one is not compared.
apt_check() {
	local got
	got=$(awk -v p="${2}_" 'index($2, p) == 1 {print $1}' "$1/.debs")
	[[ -z $3 || $got == "$3" ]] || die "$2: sha256 is $got, versions.env says $3: the pinned version was rebuilt, look why"
}
