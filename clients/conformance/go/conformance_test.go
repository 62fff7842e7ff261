package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminpb "prism.test/conformance/gen/prism/admin/v1"
	commonpb "prism.test/conformance/gen/prism/common/v1"
	kvpb "prism.test/conformance/gen/prism/keyvalue/v1"
)

const (
	// Enough for a debug build on a busy machine; no test waits for it unless something is wrong.
	patience        = 30 * time.Second
	messageBytesMax = 17 << 20
)

var (
	target    = os.Getenv("PRISM_TARGET")
	namespace = os.Getenv("PRISM_NAMESPACE")
	ids       atomic.Int64
)

func TestMain(m *testing.M) {
	if target == "" {
		fmt.Fprintln(os.Stderr, "PRISM_TARGET is not set: run clients/conformance/run, which starts the server")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// client is one connection and the stubs on it.
type client struct {
	conn       *grpc.ClientConn
	kv         kvpb.KeyValueClient
	namespaces adminpb.NamespacesClient
}

func dial(t *testing.T, options ...grpc.DialOption) client {
	t.Helper()
	options = append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(2*messageBytesMax)))
	conn, err := grpc.NewClient("passthrough:///"+target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{conn, kvpb.NewKeyValueClient(conn), adminpb.NewNamespacesClient(conn)}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// freshID is an id that no other test of this run uses.
func freshID() string {
	return fmt.Sprintf("go-%d-%d", os.Getpid(), ids.Add(1))
}

// whileFrozen runs the block while the server's process does not: what is sent waits in the kernel.
func whileFrozen(t *testing.T, block func()) {
	t.Helper()
	pid, err := strconv.Atoi(os.Getenv("PRISM_PID"))
	if err != nil {
		t.Fatal("PRISM_PID: ", err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	for range 10_000 {
		if isStopped(t, pid) {
			block()
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the server does not stop")
}

// isStopped looks at all threads: the signal takes effect a moment after it was sent, thread by thread.
func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil || !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T")) {
			return false
		}
	}
	return true
}

func scratchNamespace(t *testing.T, c client, name string) string {
	t.Helper()
	yaml := "namespace: " + name + "\nteam: conformance\nclient_api: keyvalue\nneeds:\n  durability: best-effort\n"
	if _, err := c.namespaces.Create(within(t), &adminpb.CreateRequest{Yaml: yaml}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := c.namespaces.Delete(ctx, &adminpb.DeleteRequest{Name: name}); err != nil {
			t.Error(err)
		}
	})
	return name
}

func putRequest(namespace, id string, value []byte) *kvpb.PutRequest {
	return &kvpb.PutRequest{Namespace: namespace, Id: id, Items: []*kvpb.Item{{Key: []byte("k"), Value: value}}}
}

func put(t *testing.T, c client, namespace, id string, value []byte) {
	t.Helper()
	if _, err := c.kv.Put(within(t), putRequest(namespace, id, value)); err != nil {
		t.Fatal(err)
	}
}

// mustHold fails unless the id holds exactly one item, with key "k" and this value.
func mustHold(t *testing.T, c client, id string, value []byte) {
	t.Helper()
	response, err := c.kv.Get(within(t), &kvpb.GetRequest{Namespace: namespace, Id: id})
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Items) != 1 || string(response.Items[0].Key) != "k" || !bytes.Equal(response.Items[0].Value, value) {
		t.Fatalf("%s holds %d items, not the one written", id, len(response.Items))
	}
}

func mustFail(t *testing.T, err error, code codes.Code) *status.Status {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want %v", err, code)
	}
	return status.Convert(err)
}

func TestUnaryCalls(t *testing.T) {
	c, id := dial(t), freshID()
	response, err := c.kv.Put(within(t), putRequest(namespace, id, []byte{0, 255}))
	if err != nil {
		t.Fatal(err)
	}
	switch result := response.Result; os.Getenv("PRISM_DURABILITY") {
	case "strong":
		if result.Durability != commonpb.Durability_DURABILITY_STRONG || result.Lane == 0 || result.Lsn == 0 {
			t.Fatalf("unexpected result %v", result)
		}
	case "eventual":
		if result.Durability != commonpb.Durability_DURABILITY_EVENTUAL || !result.Applied {
			t.Fatalf("unexpected result %v", result)
		}
	default:
		if result.Durability != commonpb.Durability_DURABILITY_BEST_EFFORT || !result.Applied {
			t.Fatalf("unexpected result %v", result)
		}
	}
	mustHold(t, c, id, []byte{0, 255})

	swap := &kvpb.CompareAndSwapRequest{
		Namespace: namespace, Id: id, Key: []byte("k"),
		Expected: &kvpb.CompareAndSwapRequest_Value{Value: []byte{0, 255}},
		Item:     &kvpb.Item{Value: []byte("swapped")},
	}
	swapped, err := c.kv.CompareAndSwap(within(t), swap)
	if err != nil || !swapped.Swapped {
		t.Fatalf("not swapped: %v %v", swapped, err)
	}
	swapped, err = c.kv.CompareAndSwap(within(t), swap)
	if err != nil || swapped.Swapped || string(swapped.Current.GetValue()) != "swapped" {
		t.Fatalf("swapped twice: %v %v", swapped, err)
	}
	byVersion := proto.Clone(swap).(*kvpb.CompareAndSwapRequest)
	byVersion.Expected = &kvpb.CompareAndSwapRequest_Version{Version: swapped.Current.Version}
	for _, wanted := range []bool{true, false} {
		swapped, err = c.kv.CompareAndSwap(within(t), byVersion)
		if err != nil || swapped.Swapped != wanted {
			t.Fatalf("by version: %v %v", swapped, err)
		}
	}

	// The token of a call, on another call.
	token := &commonpb.IdempotencyToken{GenerationTime: timestamppb.Now(), Token: []byte(id)}
	first := &kvpb.CompareAndSwapRequest{
		Namespace: namespace, Id: id, Key: []byte("k"), IdempotencyToken: token,
		Expected: &kvpb.CompareAndSwapRequest_Value{Value: []byte("swapped")},
		Item:     &kvpb.Item{Value: []byte("by token")},
	}
	other := proto.Clone(first).(*kvpb.CompareAndSwapRequest)
	other.Item.Value = []byte("by the same token")
	swapped, err = c.kv.CompareAndSwap(within(t), first)
	if err != nil || !swapped.Swapped {
		t.Fatalf("not swapped: %v %v", swapped, err)
	}
	_, err = c.kv.CompareAndSwap(within(t), other)
	if status.Code(err) != codes.InvalidArgument || !hasReason(err, "TOKEN_REUSED") {
		t.Fatalf("a used token: %v", err)
	}
	mustHold(t, c, id, []byte("by token"))

	mutated, err := c.kv.Mutate(within(t), &kvpb.MutateRequest{Namespace: namespace, Mutations: []*kvpb.Mutation{
		{Id: id, Operation: &kvpb.Mutation_Delete{Delete: &kvpb.DeleteItems{}}},
		{Id: id + "-b", Operation: &kvpb.Mutation_Put{Put: &kvpb.PutItems{Items: []*kvpb.Item{{Key: []byte("k"), Value: []byte("v")}}}}},
	}})
	if err != nil || len(mutated.Results) != 2 || mutated.Results[0].Status.GetCode() != 0 || mutated.Results[1].Status.GetCode() != 0 {
		t.Fatalf("mutate: %v %v", mutated, err)
	}
	mustHold(t, c, id+"-b", []byte("v"))
	if _, err := c.kv.Delete(within(t), &kvpb.DeleteRequest{Namespace: namespace, Id: id + "-b"}); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{id, id + "-b"} {
		got, err := c.kv.Get(within(t), &kvpb.GetRequest{Namespace: namespace, Id: gone})
		if err != nil || len(got.Items) != 0 {
			t.Fatalf("%s is still there: %v %v", gone, got, err)
		}
	}
}

func hasReason(err error, reason string) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Reason == reason {
			return true
		}
	}
	return false
}

func TestScanStreamsTheWholeNamespaceInPages(t *testing.T) {
	c := dial(t)
	name := scratchNamespace(t, c, "go-scan")
	for n := range 200 {
		put(t, c, name, fmt.Sprintf("id-%d", n), []byte(fmt.Sprintf("value %d", n)))
	}
	request := &kvpb.ScanRequest{Namespace: name, Selection: &kvpb.Selection{ItemLimit: 20}}
	stream, err := c.kv.Scan(within(t), request)
	if err != nil {
		t.Fatal(err)
	}
	found, pages := map[string]string{}, 0
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if len(page.Entries) > 20 {
			t.Fatalf("a page holds %d items, more than asked for", len(page.Entries))
		}
		for _, entry := range page.Entries {
			found[entry.Id] = string(entry.Items[0].Value)
		}
	}
	if pages < 10 || len(found) != 200 {
		t.Fatalf("%d ids in %d pages", len(found), pages)
	}
	for n := range 200 {
		if found[fmt.Sprintf("id-%d", n)] != fmt.Sprintf("value %d", n) {
			t.Fatalf("wrong value of id-%d: %q", n, found[fmt.Sprintf("id-%d", n)])
		}
	}
}

func TestDeadlineExceededWhileTheServerIsFrozen(t *testing.T) {
	c, id := dial(t), freshID()
	put(t, c, namespace, id, []byte("v"))
	whileFrozen(t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: id})
		mustFail(t, err, codes.DeadlineExceeded)
	})
	mustHold(t, c, id, []byte("v"))
}

func TestCancelOfAUnaryCall(t *testing.T) {
	c, id := dial(t), freshID()
	put(t, c, namespace, id, []byte("v"))
	kept := make(chan error, 1)
	whileFrozen(t, func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancelled := make(chan error, 1)
		go func() {
			_, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: id})
			cancelled <- err
		}()
		go func() {
			_, err := c.kv.Get(within(t), &kvpb.GetRequest{Namespace: namespace, Id: id})
			kept <- err
		}()
		cancel()
		mustFail(t, <-cancelled, codes.Canceled)
	})
	if err := <-kept; err != nil {
		t.Fatal("a cancelled call took another along: ", err)
	}
	mustHold(t, c, id, []byte("v"))
}

func TestCancelInTheMiddleOfAScan(t *testing.T) {
	// Windows much smaller than the data, which no compression shrinks (this client takes gzip):
	// the server cannot have sent all of it when the cancel comes.
	noise := rand.NewChaCha8([32]byte{})
	c := dial(t, grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16))
	name := scratchNamespace(t, c, "go-cancel")
	for n := range 64 {
		value := make([]byte, 65536)
		_, _ = noise.Read(value) // A ChaCha8 never fails.
		put(t, c, name, fmt.Sprintf("id-%d", n), value)
	}
	request := &kvpb.ScanRequest{Namespace: name, Selection: &kvpb.Selection{ItemLimit: 1}}
	for range 20 {
		ctx, cancel := context.WithCancel(within(t))
		stream, err := c.kv.Scan(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		for err == nil {
			_, err = stream.Recv()
		}
		mustFail(t, err, codes.Canceled)
	}
	stream, err := c.kv.Scan(within(t), request)
	entries := 0
	for err == nil {
		var page *kvpb.ScanResponse
		page, err = stream.Recv()
		entries += len(page.GetEntries())
	}
	if !errors.Is(err, io.EOF) || entries != 64 {
		t.Fatalf("after the cancelled scans a whole one brought %d entries and %v", entries, err)
	}
}

func TestFourMebibytesBothWays(t *testing.T) {
	c, id := dial(t), freshID()
	value := bytes.Repeat([]byte("0123456789abcdef"), 4<<16)
	put(t, c, namespace, id, value)
	mustHold(t, c, id, value)
}

func TestAMessageBeyondTheMaximumIsRefused(t *testing.T) {
	c, id := dial(t), freshID()
	_, err := c.kv.Put(within(t), putRequest(namespace, id, make([]byte, messageBytesMax)))
	mustFail(t, err, codes.ResourceExhausted)
	put(t, c, namespace, id, []byte("small"))
	mustHold(t, c, id, []byte("small"))
}

func TestMetadata(t *testing.T) {
	c, id := dial(t), freshID()
	ctx := metadata.AppendToOutgoingContext(within(t), "x-request-id", "abc 123", "x-trace-bin", "\x00\xff", "x-twice", "1", "x-twice", "2")
	var header, trailer metadata.MD
	request := putRequest(namespace, id, []byte("v"))
	if _, err := c.kv.Put(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get("content-type"); len(got) != 1 || !strings.HasPrefix(got[0], "application/grpc") {
		t.Fatalf("content-type in the initial metadata: %q", got)
	}
	mustHold(t, c, id, []byte("v"))
}

func TestMetadataBeyondTheMaximumIsRefused(t *testing.T) {
	c, id := dial(t), freshID()
	ctx := metadata.AppendToOutgoingContext(within(t), "x-large", strings.Repeat("h", 20<<10))
	_, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: id})
	// grpc-go checks the server's announced maximum itself and calls that Internal.
	if code := status.Code(err); code != codes.Internal && code != codes.ResourceExhausted && code != codes.Unknown {
		t.Fatalf("got %v", err)
	}
	put(t, c, namespace, id, []byte("v"))
}

func TestGzipRequests(t *testing.T) {
	c, id := dial(t, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))), freshID()
	value := bytes.Repeat([]byte("compressible "), 20_000)
	put(t, c, namespace, id, value)
	mustHold(t, c, id, value)
	mustHold(t, dial(t), id, value)
}

func TestAThousandConcurrentStreamsOnOneChannel(t *testing.T) {
	c, id := dial(t), freshID()
	put(t, c, namespace, id, []byte("warm"))
	const calls = 1000
	results := make(chan error, calls)
	call := func(n int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		own, value := fmt.Sprintf("%s-%d", id, n), fmt.Sprintf("value %d", n)
		if _, err := c.kv.Put(ctx, putRequest(namespace, own, []byte(value))); err != nil {
			return err
		}
		response, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: own})
		if err != nil {
			return err
		}
		if len(response.Items) != 1 || string(response.Items[0].Value) != value {
			return fmt.Errorf("call %d got the reply of another: %v", n, response)
		}
		return nil
	}
	started := make(chan struct{}, calls)
	whileFrozen(t, func() {
		// None can be answered before all have been handed to the channel.
		for n := range calls {
			go func() {
				started <- struct{}{}
				results <- call(n)
			}()
		}
		for range calls {
			<-started
		}
	})
	for range calls {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownMethod(t *testing.T) {
	c := dial(t)
	for _, path := range []string{"/prism.keyvalue.v1.KeyValue/Nope", "/prism.keyvalue.v1.Nope/Put"} {
		err := c.conn.Invoke(within(t), path, &kvpb.GetRequest{}, &kvpb.GetResponse{})
		mustFail(t, err, codes.Unimplemented)
	}
}

// subtypeCodec makes the client say `application/grpc+flatbuffers`.
type subtypeCodec struct{}

func (subtypeCodec) Marshal(any) ([]byte, error) { return nil, nil }
func (subtypeCodec) Unmarshal([]byte, any) error { return nil }
func (subtypeCodec) Name() string                { return "flatbuffers" }

func TestWrongContentType(t *testing.T) {
	c := dial(t)
	_, err := c.kv.Get(within(t), &kvpb.GetRequest{}, grpc.ForceCodec(subtypeCodec{}))
	// HTTP 415, which the library reports as Unknown and by its number.
	if code := status.Code(err); code != codes.Unknown && code != codes.Internal && code != codes.InvalidArgument {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "415") {
		t.Fatalf("the error does not name HTTP status 415: %v", err)
	}
}

func TestUnknownNamespace(t *testing.T) {
	c := dial(t)
	_, err := c.kv.Get(within(t), &kvpb.GetRequest{Namespace: "no-such-namespace", Id: "x"})
	refusal := mustFail(t, err, codes.NotFound)
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.Domain != "prism" || info.Reason != "NAMESPACE_UNKNOWN" {
				t.Fatalf("unexpected ErrorInfo %v", info)
			}
			return
		}
	}
	t.Fatalf("no ErrorInfo in %v", refusal.Details())
}

func TestInvalidArgumentNamesTheField(t *testing.T) {
	c := dial(t)
	request := putRequest(namespace, "x", []byte("v"))
	request.Items[0].Key = make([]byte, 1025)
	_, err := c.kv.Put(within(t), request)
	refusal := mustFail(t, err, codes.InvalidArgument)
	for _, detail := range refusal.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			if bad.FieldViolations[0].Field != "items[0].key" {
				t.Fatalf("unexpected field %q", bad.FieldViolations[0].Field)
			}
			return
		}
	}
	t.Fatalf("no BadRequest in %v", refusal.Details())
}

func TestHealth(t *testing.T) {
	health := healthpb.NewHealthClient(dial(t).conn)
	response, err := health.Check(within(t), &healthpb.HealthCheckRequest{Service: "prism.keyvalue.v1.KeyValue"})
	if err != nil || response.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v %v", response, err)
	}
	_, err = health.Check(within(t), &healthpb.HealthCheckRequest{Service: "nope"})
	mustFail(t, err, codes.NotFound)
}

func TestReflection(t *testing.T) {
	stream, err := reflectionpb.NewServerReflectionClient(dial(t).conn).ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	listed := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"}})
	names := ""
	for _, service := range listed.GetListServicesResponse().GetService() {
		names += service.Name + " "
	}
	for _, want := range []string{"prism.keyvalue.v1.KeyValue", "prism.admin.v1.Namespaces", "grpc.health.v1.Health"} {
		if !strings.Contains(names, want) {
			t.Fatalf("%s is not among %s", want, names)
		}
	}
	described := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "prism.keyvalue.v1.KeyValue"}})
	for _, raw := range described.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			t.Fatal(err)
		}
		if file.GetPackage() == "prism.keyvalue.v1" && len(file.GetService()[0].GetMethod()) == 6 {
			return
		}
	}
	t.Fatal("the answer does not hold the descriptor of KeyValue")
}

func TestLargePagesForManyGoroutinesOnOneConnection(t *testing.T) {
	c := dial(t)
	ctx := within(t)
	id := freshID()
	value := bytes.Repeat([]byte("v"), 1_000_000)
	put := func(id string, value []byte) error {
		items := []*kvpb.Item{{Key: []byte("k"), Value: value}}
		_, err := c.kv.Put(ctx, &kvpb.PutRequest{Namespace: namespace, Id: id, Items: items})
		return err
	}
	if err := put(id, value); err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for n := range 64 {
		go func() {
			reply, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: id})
			if err == nil && !bytes.Equal(reply.Items[0].Value, value) {
				err = errors.New("another value than was written")
			}
			if err == nil {
				err = put(fmt.Sprintf("%s-%d", id, n), []byte("small"))
			}
			results <- err
		}()
	}
	for range 64 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestAnErrorComesBeforeTheClientHasEndedItsCall(t *testing.T) {
	c := dial(t)
	stream, err := c.conn.NewStream(within(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/no.such.Service/Method")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&kvpb.GetResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want Unimplemented", err)
	}
}

func TestMetadataAboveTheMaximumIsAnsweredInGRPC(t *testing.T) {
	c := dial(t)
	for _, size := range []int{20 << 10, 60 << 10, 100 << 10} {
		ctx := metadata.AppendToOutgoingContext(within(t), "x-large", strings.Repeat("h", size))
		_, err := c.kv.Get(ctx, &kvpb.GetRequest{Namespace: namespace, Id: "x"})
		if status.Code(err) != codes.ResourceExhausted && status.Code(err) != codes.Internal {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := c.kv.Get(within(t), &kvpb.GetRequest{Namespace: namespace, Id: "x"}); err != nil {
			t.Errorf("after %d bytes: %v", size, err)
		}
	}
}
