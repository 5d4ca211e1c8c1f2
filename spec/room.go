package spec

// MissingBlob is what a pull would download or a load would store: a layer, or an
// image's configuration.
type MissingBlob struct {
	Digest   string `json:"digest"`
	Size     int64  `json:"size"`     // bytes to download or to store
	Unpacked int64  `json:"unpacked"` // bytes on disk once it is unpacked, beside Size, as reckoned; 0 = it isn't unpacked
}

// bytesOfFile is what an image's file takes on average, its share of directories
// included: 20 KiB in Debian's images, 13 KiB in those with many small modules.
const bytesOfFile = 16 << 10

// Room is what the blobs take on disk, each counted once.
func Room(blobs []MissingBlob) (download int64, use DiskUse) {
	seen := map[string]bool{}
	for _, b := range blobs {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		download += b.Size
		use.Add(DiskUse{Bytes: b.Size + b.Unpacked, Inodes: 1 + b.Unpacked/bytesOfFile})
	}
	return download, use
}
