module agnistack.online/e2e/pause

go 1.24.0
