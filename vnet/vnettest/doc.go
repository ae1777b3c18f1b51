// Package vnettest makes frames for the tests of the vnet. They are written by gopacket, which shares no code with the
// parsers under test.
package vnettest
