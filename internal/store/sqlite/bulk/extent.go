package bulk

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/telexec/telexec/internal/command"
)

// BlockSize is how many bytes have a checksum together, and so the least that is
// read. Blocks begin at multiples of it in the stream; the first and the last one
// of an extent may be short.
const BlockSize = 64 << 10

// castagnoli is the polynomial that processors compute themselves: the sums take
// a hundredth of the time that writing does.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Extent is a run of bytes in a file.
type Extent struct {
	Offset, Length int64
	Sums           []byte // 4 bytes for each block it touches: CRC-32C, big endian
}

// End is the offset behind it.
func (e Extent) End() int64 { return e.Offset + e.Length }

// valid reports whether there is a checksum for every byte.
func (e Extent) valid() bool {
	return e.Offset >= 0 && e.Length > 0 && e.End() > 0 &&
		int64(len(e.Sums)) == 4*((e.End()-1)/BlockSize-e.Offset/BlockSize+1)
}

// block gives the bounds of the block that an offset is in.
func (e Extent) block(offset int64) (from, to int64) {
	from = offset - offset%BlockSize
	return max(from, e.Offset), min(from+BlockSize, e.End())
}

// matches reports whether data is the block that begins at from.
func (e Extent) matches(from int64, data []byte) bool {
	i := from/BlockSize - e.Offset/BlockSize
	return binary.BigEndian.Uint32(e.Sums[4*i:]) == crc32.Checksum(data, castagnoli)
}

// Extended gives the extent that e is once data lies behind it in the file: what
// was recorded of e before is part of it. An e of Length 0 begins one.
func (e Extent) Extended(data []byte) Extent {
	sums := summer{offset: e.Offset, end: e.End(), sums: slices.Clone(e.Sums)}
	if last := len(sums.sums) - 4; last >= 0 && sums.end%BlockSize != 0 { // its last block goes on
		sums.sum, sums.sums = binary.BigEndian.Uint32(sums.sums[last:]), sums.sums[:last]
	}
	sums.add(command.Chunk{Data: data})
	return sums.extent()
}

// summer makes an extent of chunks that follow each other.
type summer struct {
	offset, end int64 // offset is -1 before the first chunk
	sum         uint32
	sums        []byte
}

func (b *summer) add(c command.Chunk) {
	if b.offset < 0 {
		b.offset, b.end = c.Offset, c.Offset
	}
	for data := c.Data; len(data) > 0; {
		n := min(BlockSize-b.end%BlockSize, int64(len(data)))
		b.sum = crc32.Update(b.sum, castagnoli, data[:n])
		b.end, data = b.end+n, data[n:]
		if b.end%BlockSize == 0 {
			b.close()
		}
	}
}

// close ends a block.
func (b *summer) close() {
	b.sums = binary.BigEndian.AppendUint32(b.sums, b.sum)
	b.sum = 0
}

func (b *summer) extent() Extent {
	if b.end%BlockSize != 0 {
		b.close()
	}
	return Extent{Offset: b.offset, Length: b.end - b.offset, Sums: b.sums}
}
