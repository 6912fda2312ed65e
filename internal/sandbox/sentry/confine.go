package sentry

func confine(b *box) ([]string, error) { return nil, nil }

func (c *child) check(res *response) error { return nil }
