// Package archtest checks the rules of the house on the code itself: who may
// import whom, that every big library has one importer, and that every package
// says what it is for.
package archtest
