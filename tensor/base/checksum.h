// CRC-32C (Castagnoli), the checksum of iSCSI and ext4, and CRC-32, the one of PNG and zip: they find every flipped bit and every
// run of damage up to 32 bits long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera {

// Of `bytes`, or of what `before` is the checksum of followed by them. By the CPU's instruction where it has one (several gigabytes a
// second), else by tables.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);

// By tables on every CPU.
uint32_t crc32c_by_tables(std::span<const std::byte> bytes, uint32_t before = 0);

// CRC-32 (IEEE 802.3), by tables.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace tessera
