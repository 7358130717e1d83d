module heartline.example/peers/go

go 1.19
