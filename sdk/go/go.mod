module colonies

go 1.21

require (
	github.com/BurntSushi/toml v1.4.0
	golang.org/x/crypto v0.27.0
	google.golang.org/grpc v1.67.1
	google.golang.org/protobuf v1.35.1
)
