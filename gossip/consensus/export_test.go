package consensus

// OpenPlanted opens a store and its core with a mistake planted.
func OpenPlanted(disk Disk, segment int64, cfg CoreConfig, planted Planted) (*Core, error) {
	store, err := openStore(disk, segment, planted)
	if err != nil {
		return nil, err
	}
	cfg.Store, cfg.planted = store, planted
	return NewCore(cfg)
}

// Brief is what the tests by seed look at after each event; State copies more.
func (c *Core) Brief() (term uint64, leads bool, index uint64, failed error) {
	return c.hard.Term, c.leads() && c.failed == nil, c.ledger.Index, c.failed
}

// Close closes the core's store.
func (c *Core) Close() error { return c.store.Close() }

// Lineage returns the lineage of the core's epoch.
func (c *Core) Lineage() uint64 { _, _, lineage := c.store.Identity(); return lineage }
